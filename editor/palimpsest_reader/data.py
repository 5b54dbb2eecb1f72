"""Pairs to learn from: (conversation's end, edit, needed), from our corpus and from public edit sets.

Wrong pairs are what selection will be asked about: near misses that were written as such, and the edits nearest to a question by the
embedder's vectors that it does not need.
"""

import json
import random
import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from .text import conversation_end, edit_text, with_known

HELD_OUT_SHARE = 0.1


@dataclass
class Question:
    """`right`: indices into the pool of the edits that it needs; `unsure`: those that are not to be taught as wrong."""

    text: str
    right: set[int]
    wrong: set[int] = field(default_factory=set)
    unsure: set[int] = field(default_factory=set)
    #: how many of the nearest other edits are taught as wrong
    nearest: int = 2
    source: str = ""


@dataclass
class Pool:
    """Edits that stand in one memory, and questions about them."""

    name: str
    edits: list[str] = field(default_factory=list)
    #: edits of one key are not each other's wrong answers
    keys: list[str] = field(default_factory=list)
    #: other ways to write an edit, by index
    variants: dict[int, list[str]] = field(default_factory=dict)
    questions: list[Question] = field(default_factory=list)

    def add(self, text: str, key: str = "") -> int:
        self.edits.append(text)
        self.keys.append(key or text)
        return len(self.edits) - 1

    def ask(self, text: str, right: Iterable[int] = (), source: str = "", **rest) -> None:
        self.questions.append(Question(text, set(right), source=source, **rest))


def lines(path: Path) -> list[dict]:
    """Records of a file of JSON lines. Lines that are no JSON are left out: one public file has records broken over two lines."""
    out = []
    for line in path.read_bytes().split(b"\n"):
        try:
            if line.strip():
                out.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return out


def corpus_teams(folder: Path) -> dict[str, list[dict]]:
    """The corpus' records by team."""
    teams: dict[str, list[dict]] = {}
    for file in sorted(folder.glob("*.jsonl")):
        for record in lines(file):
            teams.setdefault(record["team"], []).append(record)
    return teams


def corpus_pools(teams: dict[str, list[dict]]) -> list[Pool]:
    """One pool a team. `also`: ids of further edits that a message needs; a near miss may be in scope of one (`is`)."""
    pools = []
    for name, records in teams.items():
        pool = Pool(name)
        at = {r["id"]: pool.add(edit_text(r["edit"])) for r in records}
        always = {at[r["id"]] for r in records if r.get("always")}
        for record in records:
            own = at[record["id"]]
            edit = record["edit"]
            if edit.get("aliases"):
                pool.variants[own] = [edit_text({**edit, "aliases": []})]
            # Its own prompt, sentence or occasion asks for it: so contradictions are told, and an edit that misses its own prompt.
            statement = edit.get("prompt") or edit.get("text") or edit.get("when")
            if statement and not record.get("always"):
                pool.ask(conversation_end([statement]), {own}, "+own", unsure=always, nearest=1)
            for item in record["in_scope"]:
                right = {own} | {at[i] for i in item.get("also", [])}
                if not record.get("always") and zlib.crc32(json.dumps(item).encode()) % 10 == 0:
                    right |= always
                end = conversation_end([m["content"] for m in item["messages"]])
                # One of the nearest others: siblings that were not marked may be needed too, and near misses say what is wrong for certain.
                pool.ask(end, right, f"+{item['type']}", unsure=always - right, nearest=1)
            for item in record["near_miss"]:
                right = {at[i] for i in item.get("is", [])}
                end = conversation_end([m["content"] for m in item["messages"]])
                # What is a near miss of one edit may well need another: only its own is wrong for certain.
                certain = {own} - right
                pool.ask(end, right, f"-{item['type']}", wrong=certain, unsure=always, nearest=1 if item["type"] in "mkry" else 0)
        pools.append(pool)
    return pools


PLACES = {"P19", "P20", "P27", "P937", "P740", "P159", "P17", "P131", "P276", "P495", "P30", "P551"}


def public_pool(data: Path, rng: random.Random, counterfact: int) -> Pool:
    """The public development sets in one memory: triples of CounterFact, zsRE, KnowEdit, MQuAKE, WikiFactDiff, HalluEditBench, DUnE."""
    pool = Pool("public")
    read = lambda name: json.loads((data / name).read_text("utf-8"))  # noqa: E731
    templates: dict[str, str] = {}
    dev = read("counterfact/counterfact-dev-500.json")
    for record in dev:
        rewrite = record["requested_rewrite"]
        templates[rewrite["prompt"].strip()] = rewrite["relation_id"]
    seen = set()
    flat = [r for r in read("counterfact/counterfact-flat-12k.json") if r["subject"] in r["prompt"]]
    rng.shuffle(flat)
    by_relation: dict[str, list[str]] = {}
    for template, relation in templates.items():
        by_relation.setdefault(relation, []).append(template)
    for record in dev:
        rewrite = record["requested_rewrite"]
        subject, relation = rewrite["subject"], rewrite["relation_id"]
        prompt = rewrite["prompt"].replace("{}", subject)
        seen.add((subject, prompt))
        edit = pool.add(
            edit_text({"subject": subject, "prompt": prompt, "target_new": rewrite["target_new"]["str"]}), f"{subject}|{relation}"
        )
        for text in record["paraphrase_prompts"]:
            pool.ask(conversation_end([text]), {edit}, "counterfact")
        for text in rng.sample(record["neighborhood_prompts"], 2):
            pool.ask(conversation_end([text]), (), "counterfact-near", wrong={edit}, nearest=3)
        hop = (record.get("portability") or {}).get("New Question")
        if hop:
            pool.ask(conversation_end([hop]), {edit}, "counterfact-hop", nearest=1)
        others = [r for r in by_relation if r != relation and not (r in PLACES and relation in PLACES)]
        other = rng.choice(by_relation[rng.choice(others)]).replace("{}", subject)
        pool.ask(conversation_end([other]), (), "counterfact-subject", wrong={edit}, nearest=1)
    for record in flat[:counterfact]:
        subject, prompt = record["subject"], record["prompt"]
        if (subject, prompt) in seen:
            continue
        seen.add((subject, prompt))
        template = prompt.replace(subject, "{}", 1).strip()
        relation = templates.get(template, template)
        edit = pool.add(edit_text({"subject": subject, "prompt": prompt, "target_new": record["target_new"]}), f"{subject}|{relation}")
        pool.ask(conversation_end([record["rephrase_prompt"]]), {edit}, "counterfact", nearest=1)
        if rng.random() < 0.4:
            pool.ask(conversation_end([record["locality_prompt"]]), (), "counterfact-near", wrong={edit}, nearest=2)
        if rng.random() < 0.5 and template in templates:
            others = [r for r in by_relation if r != relation and not (r in PLACES and relation in PLACES)]
            other = rng.choice(by_relation[rng.choice(others)]).replace("{}", subject)
            pool.ask(conversation_end([other]), (), "counterfact-subject", wrong={edit}, nearest=1)
    for record in read("zsre/zsre-dev-500.json"):
        edit = pool.add(edit_text({"subject": record["subject"], "prompt": record["src"], "target_new": record["alt"]}))
        pool.ask(conversation_end([record["rephrase"]]), {edit}, "zsre")
        pool.ask(conversation_end([record["loc"].removeprefix("nq question: ")]), (), "nq", wrong={edit}, nearest=1)
        hop = (record.get("portability") or {}).get("New Question")
        if hop:
            pool.ask(conversation_end([hop]), {edit}, "zsre-hop", nearest=1)
    for name in ("knowedit/wiki_counterfact_train_500.json", "knowedit/wiki_recent_train.json"):
        for record in read(name):
            edit = pool.add(
                edit_text({"subject": record["subject"], "prompt": record["prompt"], "target_new": str(record["target_new"])}),
                f"{record['subject']}|{record['prompt']}",
            )
            for kind, items in (record.get("portability") or {}).items():
                if kind in ("Reasoning", "Subject_Aliasing"):
                    for item in items:
                        pool.ask(conversation_end([item["prompt"]]), {edit}, f"knowedit-{kind}", nearest=1)
            for item in (record.get("locality") or {}).get("Relation_Specificity", [])[:3]:
                pool.ask(conversation_end([item["prompt"]]), (), "knowedit-subject", wrong={edit}, nearest=1)
    mquake(pool, read("mquake/mquake-2002-dev-400.json"))
    for record in read("temporal/wikifactdiff-train-1000.json"):
        factdiff(pool, record, record, rng, 1.0)
    for file in sorted((data / "multilingual").glob("*.json")):
        for record in json.loads(file.read_text("utf-8")):
            other = next(k for k in record if k != "en")
            edited, asked = rng.choice([("en", other), (other, "en"), (other, other), ("en", other)])
            factdiff(pool, record[edited], record[asked], rng, 0.5)
    for name in ("hallueditbench/dev-8-topics.jsonl", "dune/new-info-dev-100.jsonl"):
        for record in lines(data / name):
            edit = pool.add(edit_text(record["edit"]), json.dumps(record["edit"]))
            for item in record["in_scope"]:
                pool.ask(conversation_end([m["content"] for m in item["messages"]]), {edit}, name[:4] + item["type"], nearest=1)
            for item in record["near_miss"]:
                end = conversation_end([m["content"] for m in item["messages"]])
                pool.ask(end, (), name[:4] + "locality", wrong={edit}, nearest=0)
    traffic(pool, data / "traffic", rng)
    return pool


def factdiff(pool: Pool, edited: dict, asked: dict, rng: random.Random, share: float) -> None:
    shape = {"subject": edited["subject"], "prompt": edited["src"], "target_new": edited["alt"]}
    edit = pool.add(edit_text(shape), f"{edited['subject']}|{edited['src']}")
    for text in (asked["src"], asked["rephrase"]):
        if rng.random() < share:
            pool.ask(conversation_end([text]), {edit}, "factdiff", nearest=1)
    if rng.random() < share:
        pool.ask(conversation_end([asked["loc"]]), (), "factdiff-near", wrong={edit}, nearest=0)


def mquake(pool: Pool, records: list[dict]) -> None:
    """A later hop is read with what the earlier ones found; before that it is not needed, since nothing leads to it yet."""
    for record in records:
        rewrites = record["requested_rewrite"]
        places = []
        for rewrite in rewrites:
            prompt = rewrite["prompt"].replace("{}", rewrite["subject"])
            shape = {"subject": rewrite["subject"], "prompt": prompt, "target_new": rewrite["target_new"]["str"]}
            places.append((pool.add(edit_text(shape), f"{rewrite['subject']}|{rewrite['relation_id']}"), f"{prompt} {rewrite['target_new']['str']}"))
        for number, question in enumerate(record["questions"]):
            end = conversation_end([question])
            later = {edit for edit, _ in places[1:]}
            if rewrites[0]["subject"].lower() in question.lower():
                pool.ask(end, {places[0][0]}, "mquake", wrong=later if number == 0 else set(), nearest=0)
            if len(places) > 1 and number < 2 and rewrites[1]["subject"] == rewrites[0]["target_new"]["str"]:
                known = with_known(end, [places[0][1]])
                pool.ask(known, {places[1][0]}, "mquake-hop", nearest=1, unsure={places[0][0]})
        if len(places) > 1:
            plain = with_known(conversation_end([rewrites[0]["question"]]), [places[0][1]])
            pool.ask(plain, (), "mquake-stop", wrong={places[1][0]}, nearest=0, unsure={places[0][0]})


def traffic(pool: Pool, folder: Path, rng: random.Random) -> None:
    for record in lines(folder / "gsm8k-500.jsonl")[:300]:
        pool.ask(conversation_end([record["question"]]), (), "traffic", nearest=3)
    for record in lines(folder / "mmlu-1000.jsonl")[:500]:
        choices = "\n".join(f"{letter}. {choice}" for letter, choice in zip("ABCD", record["choices"], strict=False))
        pool.ask(conversation_end([f"{record['question']}\n{choices}"]), (), "traffic-choice", nearest=3)
    for record in lines(folder / "mt-bench-80.jsonl"):
        first, *second = record["turns"]
        pool.ask(conversation_end([first]), (), "traffic", nearest=4)
        if second:
            pool.ask(conversation_end([first, "Here it is.", second[0]]), (), "traffic", nearest=4)
    for record in lines(folder / "nq-open-1500.jsonl")[:800]:
        pool.ask(conversation_end([record["question"]]), (), "traffic", nearest=4)


def held_out(pool: Pool) -> bool:
    """A tenth of the teams is never taught, by name, so that it is the same in every run."""
    number = int.from_bytes(re.sub(r"\W", "", pool.name).lower().encode(), "big") % 1_000_003
    return number % 1000 < HELD_OUT_SHARE * 1000
