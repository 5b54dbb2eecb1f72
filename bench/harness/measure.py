"""What the tasks of this folder need beside lm-evaluation-harness; run with two folders of samples, compares them."""

import json
import sys
from pathlib import Path


def questions(docs):
    """Each question once."""
    return docs.filter(lambda doc: doc["kind"] == "as a question")


def holds_target(doc, results):
    return {"has_target": float(doc["choices"][doc["gold"]].lower() in results[0].lower())}


def samples(folder, task):
    [file] = Path(folder).rglob(f"samples_{task}_*.jsonl")
    return {sample["doc_id"]: sample for sample in map(json.loads, file.open())}


def compare(edited, base):
    """By kind of document: accuracy of both arms, equal choices, and the largest difference of a log probability."""
    print(f"{'':27}   n  edited    base  same choice  largest difference")
    for task in ("palimpsest_edited", "palimpsest_unrelated"):
        ours, theirs = samples(edited, task), samples(base, task)
        for kind in dict.fromkeys(sample["doc"]["kind"] for sample in ours.values()):
            pairs = [(ours[i], theirs[i]) for i in ours if ours[i]["doc"]["kind"] == kind]
            scores = [[[float(answer[0]) for answer in one["filtered_resps"]] for one in pair] for pair in pairs]
            right = [sum(pair[arm]["acc"] for pair in pairs) / len(pairs) for arm in (0, 1)]
            same = sum(a.index(max(a)) == b.index(max(b)) for a, b in scores) / len(pairs)
            most = max(abs(x - y) for a, b in scores for x, y in zip(a, b))
            print(f"{task[11:]:9} {kind:17} {len(pairs):3} {right[0]:6.0%} {right[1]:7.0%} {same:10.0%} {most:16.4f}")


if __name__ == "__main__":
    compare(*sys.argv[1:3])
