#!/bin/sh
# Runs the tasks of this folder through lm-evaluation-harness against both arms of a running gateway:
#   pip install "lm-eval[api]"
#   bench/harness/run.sh http://127.0.0.1:8080 qwen2.5-coder-0.5b-instruct [OUT]
# Lands the edits of edits.jsonl and withdraws them at the end, under a name of its own each time: what was withdrawn once stays so.
set -eu
base=${1%/}
model=$2
batch=harness-$(date +%s)
out=$(realpath -m "${3:-/tmp/palimpsest-harness}")
cd "$(dirname "$0")"
mkdir -p "$out"
rm -rf "$out/edited" "$out/base"

awk -v name="$batch" '{ sub(/^{/, "{\"id\": \"" name "-" NR "\", "); print }' edits.jsonl |
  curl -fsS "$base/v1/edits?batch=$batch" -H 'Content-Type: application/x-ndjson' --data-binary @- >"$out/landed.json"
trap 'curl -fsS -X POST "$base/v1/batches/$batch/withdraw" >"$out/withdrawn.json"' EXIT

for arm in edited base; do
  name=$model
  [ $arm = base ] && name=$model@base
  lm_eval --model local-completions --include_path . --tasks palimpsest_edited,palimpsest_unrelated \
    --model_args "model=$name,base_url=$base/v1/completions" --log_samples --output_path "$out/$arm"
  lm_eval --model local-chat-completions --include_path . --tasks palimpsest_answers --apply_chat_template \
    --model_args "model=$name,base_url=$base/v1/chat/completions" --log_samples --output_path "$out/$arm"
done
python3 measure.py "$out/edited" "$out/base"
