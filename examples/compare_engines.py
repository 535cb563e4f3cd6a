"""Compare the engines that are here from Python; the report is data as well as text."""

from diptych.compare import Settings, compare, demo

report = compare(demo(), Settings(threads=1, rounds=2, turn_s=0.05, quick=True))
print(report.as_text())
for row in report.rows:
    if row.counts and row.latency is not None and row.judgement is not None:
        print(f"{row.engine}: {row.latency.median * 1e6:.1f} us, accuracy {row.judgement.accuracy:.4f}")
