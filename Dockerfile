# syntax=docker/dockerfile:1
# The packed package in an image, for linux/amd64 and linux/arm64: docker build -t palimpsest .
# With NVIDIA's CUDA, amd64 alone: docker build --build-arg GPU=cuda -t palimpsest:cuda .
ARG GPU=cpu

FROM node:22-bookworm AS package
ARG GPU
WORKDIR /clone
COPY . .
RUN npm pack --pack-destination /tmp \
  && npm install --global --no-audit --no-fund /tmp/palimpsest-*.tgz
# What other processors need, and without a GPU 600 MB of what GPUs need.
WORKDIR /usr/local/lib/node_modules/palimpsest/node_modules/@node-llama-cpp
RUN case "$(uname -m)" in x86_64) rm -rf linux-arm* ;; *) rm -rf linux-x64* linux-armv7l ;; esac \
  && if [ "$GPU" = cpu ]; then rm -rf ./*-cuda* ./*-vulkan; fi

FROM node:22-bookworm-slim AS runtime-cpu

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04 AS runtime-cuda
COPY --from=package /usr/local/bin/node /usr/local/bin/node

# hadolint ignore=DL3006
FROM runtime-${GPU}
# Python and pip are for models that come through a package index where no model hub is reached. A pinned one would be gone from the mirrors soon.
# hadolint ignore=DL3008
RUN apt-get update \
  && apt-get install -y --no-install-recommends ca-certificates libgomp1 python3 python3-pip \
  && rm -rf /var/lib/apt/lists/*
COPY --from=package /usr/local/lib/node_modules/palimpsest /usr/local/lib/node_modules/palimpsest
RUN ln -s ../lib/node_modules/palimpsest/bin/palimpsest.mjs /usr/local/bin/palimpsest \
  && mkdir -p /data /models \
  && chown 1000:1000 /data /models
USER 1000:1000
WORKDIR /data
ENV NODE_ENV=production PALIMPSEST_HOME=/models PALIMPSEST_DATA_DIR=/data PALIMPSEST_AUTH=keys
VOLUME ["/data", "/models"]
EXPOSE 8080
# Unlike /health it needs no API key. 503 while the model is fetched and loads.
HEALTHCHECK --interval=15s --timeout=5s --start-period=30m \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8080/readyz').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Whoever reaches the container needs a key: docker exec … palimpsest keys create
ENTRYPOINT ["palimpsest"]
CMD ["serve", "--host", "0.0.0.0"]
