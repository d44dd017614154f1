"""Random schedules and their next times by croniter, a line of JSON each: for tests/croniter.rs.

`second_at_beginning` puts the seconds first; `implement_cron_bug` is crontab's rule for the two day fields.
"""

import json
import random
import sys

from croniter import croniter

FIELDS = [(0, 59), (0, 59), (0, 23), (1, 31), (1, 12), (0, 7)]
NAMES = {4: "jan feb mar apr may jun jul aug sep oct nov dec".split(), 5: "sun mon tue wed thu fri sat".split()}


def value(chance, field, at):
    """A number, now and then by its name."""
    if field in NAMES and at - FIELDS[field][0] < len(NAMES[field]) and chance.random() < 0.3:
        name = NAMES[field][at - FIELDS[field][0]]
        return name.upper() if chance.random() < 0.5 else name
    return str(at)


def item(chance, field):
    low, high = FIELDS[field]
    kind = chance.random()
    if kind < 0.35:
        return value(chance, field, chance.randint(low, high))
    # Ranges of one value are left out: croniter takes 5-5 for the whole field.
    first = chance.randint(low, high - 1)
    last = chance.randint(first + 1, high)
    step = chance.randint(1, max(2, (high - low) // 2))
    if kind < 0.55:
        return f"{first}-{last}"
    if kind < 0.7:
        return f"{first}-{last}/{step}"
    return f"*/{step}"


def field_text(chance, field):
    kind = chance.random()
    if kind < (0.35 if field < 3 else 0.5):
        return "*"
    if kind < 0.85:
        return item(chance, field)
    # A list's first item decides whether the field counts as a restriction, so a star may only stand first.
    parts = [item(chance, field) for _ in range(chance.randint(2, 4))]
    return ",".join(parts[:1] + [part for part in parts[1:] if not part.startswith("*")])


def main(seed, count):
    chance = random.Random(seed)
    while count:
        text = " ".join(field_text(chance, field) for field in range(6))
        start = chance.randint(1_577_836_800, 2_000_000_000)
        try:
            times = croniter(text, start, second_at_beginning=True, implement_cron_bug=True)
            fires = [int(times.get_next(float)) for _ in range(8)]
        except Exception:  # Never due, or not croniter's language.
            continue
        count -= 1
        print(json.dumps({"text": text, "from": start, "fires": fires}))


main(int(sys.argv[1]), int(sys.argv[2]))
