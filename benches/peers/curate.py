"""The selection of a curation, by DuckDB or Polars: the same question in another program.

Reads a pool of JSON lines, keeps the first of samples with the same picture and turns, of these so many of
each value of `source` as cap and quotas of the plan leave, in the order of a hash of the content, and writes the
lines that are kept in the order of the file. Which samples these are differs from program to program, because
the hash does; how many are kept of each source must not, and is printed.

    python curate.py duckdb|polars POOL OUT PLAN.json MEMORY_GB THREADS
"""

import json
import os
import sys
import time


def largest_remainder(total, weights):
    """Shares that add up to the total: whole parts, and one more for the largest remainders."""
    exact = [total * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    order = sorted((i for i, weight in enumerate(weights) if weight > 0), key=lambda i: -(exact[i] % 1))
    for i in range(total - sum(shares)):
        shares[order[i % len(order)]] += 1
    return shares


def limits(counts, plan):
    """How many of each source are kept: the cap, then the quota of its category in proportion to what sources have."""
    capped = {source: min(count, plan["cap"]) for source, count in counts.items()}
    kept = {}
    for category, quota in zip(plan["categories"], largest_remainder(plan["total"], plan["ratios"])):
        own = sorted(source for source in capped if plan["category_of"][source] == category)
        has = [capped[source] for source in own]
        shares = has if quota >= sum(has) else largest_remainder(quota, has)
        kept.update((source, min(share, most)) for source, share, most in zip(own, shares, has))
    return kept


def duckdb_curate(pool, out, plan, memory, threads):
    import duckdb

    db = duckdb.connect(config={"memory_limit": f"{memory}GB", "threads": threads})
    db.execute("SET temp_directory = ?", [out + ".spill"])
    db.execute("SET preserve_insertion_order = true")
    # Columns without quotes, so that a row is a line; lines that are no JSON are left out.
    db.execute(
        """
        CREATE TABLE indexed AS
        SELECT file_row_number AS pos, json_extract_string(line, '$.source') AS source,
               md5_number(coalesce(json_extract_string(line, '$.image'), '')
                          || json_extract_string(line, '$.conversations')) AS content
        FROM (SELECT column0 AS line, row_number() OVER () AS file_row_number
              FROM read_csv(?, delim = '\\x01', quote = '', escape = '', header = false,
                            columns = {'column0': 'VARCHAR'}, max_line_size = 67108864,
                            auto_detect = false, strict_mode = false))
        WHERE json_valid(line)
        """,
        [pool],
    )
    db.execute(
        """
        CREATE TABLE ranked AS
        SELECT pos, source, row_number() OVER (PARTITION BY source ORDER BY content, pos) AS rank
        FROM (SELECT *, min(pos) OVER (PARTITION BY content) AS first FROM indexed)
        WHERE pos = first
        """
    )
    counts = dict(db.execute("SELECT source, count(*) FROM ranked GROUP BY source").fetchall())
    db.execute("CREATE TABLE limits (source VARCHAR, most BIGINT)")
    db.executemany("INSERT INTO limits VALUES (?, ?)", list(limits(counts, plan).items()))
    db.execute(
        "CREATE TABLE kept AS SELECT pos, source FROM ranked JOIN limits USING (source) WHERE rank <= most"
    )
    counts = dict(db.execute("SELECT source, count(*) FROM kept GROUP BY source").fetchall())
    kept = db.execute("SELECT pos FROM kept ORDER BY pos").fetchnumpy()["pos"]
    return counts, kept, f"DuckDB {duckdb.__version__}"


def polars_curate(pool, out, plan, memory, threads):
    import polars as pl

    lines = pl.scan_csv(
        pool, separator="\x01", quote_char=None, has_header=False, new_columns=["line"], infer_schema=False
    ).with_row_index("pos", offset=1)
    field = lambda name: pl.col("line").str.json_path_match(f"$.{name}")
    indexed = (
        lines.select(
            "pos",
            field("source").alias("source"),
            (field("image").fill_null("") + field("conversations")).hash(seed=0).alias("content"),
        )
        .filter(pl.col("source").is_not_null())
        .collect(engine="streaming")
    )
    unique = indexed.filter(pl.col("pos") == pl.col("pos").min().over("content"))
    most = limits(dict(unique.group_by("source").len().iter_rows()), plan)
    most = pl.LazyFrame({"source": list(most), "most": list(most.values())})
    kept = (
        unique.lazy()
        .join(most, on="source")
        .filter(pl.struct("content", "pos").rank("ordinal").over("source") <= pl.col("most"))
        .select("pos", "source")
        .sort("pos")
        .collect()
    )
    counts = dict(kept.group_by("source").len().iter_rows())
    return counts, kept["pos"].to_numpy(), f"Polars {pl.__version__}"


def copy_lines(pool, out, kept):
    """Lines by their numbers, from 1, ascending."""
    kept = iter(kept)
    wanted = next(kept, None)
    with open(pool, "rb", buffering=1 << 20) as read, open(out, "wb", buffering=1 << 20) as write:
        for number, line in enumerate(read, start=1):
            if number == wanted:
                write.write(line)
                wanted = next(kept, None)
        write.flush()
        os.fsync(write.fileno())


def peak():
    with open("/proc/self/status") as status:
        for line in status:
            if line.startswith("VmHWM"):
                return int(line.split()[1]) * 1024
    return None


def main():
    name, pool, out, plan, memory, threads = sys.argv[1:]
    with open(plan) as file:
        plan = json.load(file)
    os.environ["POLARS_MAX_THREADS"] = threads
    curate = {"duckdb": duckdb_curate, "polars": polars_curate}[name]
    start = time.perf_counter()
    counts, kept, about = curate(pool, out, plan, int(memory), int(threads))
    selected = time.perf_counter() - start
    copy_lines(pool, out, kept)
    seconds = time.perf_counter() - start
    print(json.dumps({"about": about, "selected_seconds": selected, "seconds": seconds,
                      "peak_bytes": peak(), "kept": counts}))


if __name__ == "__main__":
    main()
