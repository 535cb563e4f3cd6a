"""Compute diptych/codegen/math_tables.py: minimax polynomials by Remez's exchange in 60-digit arithmetic.

Run `python scripts/fit_math.py > diptych/codegen/math_tables.py` (needs mpmath). Each table says which function it
approximates on which interval, with which weight, and the largest weighted error that the exchange ended with.
Coefficients are listed from the constant term up, as the float64 nearest to the exact ones; the generated code
rounds them to its own precision.
"""

from __future__ import annotations

from collections.abc import Callable

from mpmath import mp, mpf

mp.dps = 60
Fn = Callable[[mpf], mpf]


def _solve(points: list[mpf], f: Fn, weight: Fn, degree: int) -> list[mpf]:
    """Coefficients p, with a level e such that p(x) + (-1)^i e / weight(x) = f(x) on the degree + 2 points."""
    rows = mp.matrix(degree + 2, degree + 2)
    right = mp.matrix(degree + 2, 1)
    for i, x in enumerate(points):
        for j in range(degree + 1):
            rows[i, j] = x**j
        rows[i, degree + 1] = (-1) ** i / weight(x)
        right[i] = f(x)
    out = mp.lu_solve(rows, right)
    return [out[j] for j in range(degree + 1)]


def remez(f: Fn, low: mpf, high: mpf, degree: int, weight: Fn) -> tuple[list[mpf], mpf]:
    """The polynomial that minimises max |weight (p - f)| on [low, high], and that maximum."""
    low, high = mpf(low), mpf(high)
    count = 40 * (degree + 2)
    grid = [(low + high) / 2 - (high - low) / 2 * mp.cos(mp.pi * i / count) for i in range(count + 1)]
    values, weights = [f(x) for x in grid], [weight(x) for x in grid]
    points = [grid[round(i * count / (degree + 1))] for i in range(degree + 2)]
    best = None
    for _ in range(12):
        p = _solve(points, f, weight, degree)
        errors = [(mp.polyval(p[::-1], x) - v) * w for x, v, w in zip(grid, values, weights)]
        worst = max(abs(e) for e in errors)
        if best is None or worst < best[1]:
            best = (p, worst)
        # the extremum of each run of one sign, then the best degree + 2 neighbours among them
        runs: list[int] = []
        for i, e in enumerate(errors):
            if runs and (errors[runs[-1]] > 0) == (e > 0):
                if abs(e) > abs(errors[runs[-1]]):
                    runs[-1] = i
            else:
                runs.append(i)
        while len(runs) > degree + 2:
            del runs[0 if abs(errors[runs[0]]) < abs(errors[runs[-1]]) else -1]
        if len(runs) < degree + 2:
            break
        points = [grid[i] for i in runs]
    assert best is not None
    return best


def limited(f: Fn, at_zero: float | mpf) -> Fn:
    """f with its limit at 0, near which the difference quotients below lose every digit."""
    return lambda x: mpf(at_zero) if abs(x) < mpf(10) ** -18 else f(x)


def table(name: str, what: str, f: Fn, low: float | mpf, high: float | mpf, degree: int, weight: Fn) -> None:
    """Print one table."""
    p, error = remez(f, low, high, degree, weight)
    print(f"# {what}; degree {degree} on [{mp.nstr(mpf(low), 6)}, {mp.nstr(mpf(high), 6)}], error {mp.nstr(error, 3)}")
    print(f"{name} = (")
    for c in p:
        print(f"    {float(c)!r},")
    print(")\n")


def pieces(name: str, what: str, f: Fn, step: mpf, count: int, degree: int, last: mpf) -> None:
    """Polynomials around the multiples of `step` from 0, and one piece more that is constant: a row per coefficient."""
    rows, error = [], mpf(0)
    for i in range(count):
        p, e = remez(lambda d, i=i: f(i * step + d), -step / 2, step / 2, degree, lambda _: mpf(1))
        rows.append(p)
        error = max(error, e)
    rows.append([last] + [mpf(0)] * degree)
    print(f"\n# {what} around a = {mp.nstr(step, 4)} i, absolute; degree {degree}, error {mp.nstr(error, 3)}; a column per i")
    print(f"{name.removesuffix('_F32')}_STEP = {float(step)}")
    print(f"{name} = (")
    for k in range(degree + 1):
        row = [repr(float(p[k]) if abs(p[k]) > mpf("1e-40") else 0.0) for p in rows]  # of an odd function, around 0
        print("    (")
        for first in range(0, count + 1, 4):
            print(f"        {', '.join(row[first : first + 4])},")
        print("    ),")
    print(")")


def splits(name: str, what: str, value: mpf, bits: tuple[int, ...]) -> None:
    """Print a constant as a sum of pieces of so many bits each; the last piece is rounded to float64."""
    parts, rest = [], value
    for b in bits:
        exponent = mp.floor(mp.log(abs(rest), 2))
        unit = mpf(2) ** (exponent - b + 1)
        parts.append(mp.nint(rest / unit) * unit)
        rest -= parts[-1]
    print(f"# {what} in pieces of {', '.join(map(str, bits))} bits\n{name} = {tuple(map(float, parts))!r}\n")


def inverse_erf(root: mpf) -> mpf:
    """erfinv(x) / x for the x with sqrt(-log(1 - x^2)) = root."""
    x = mp.sqrt(-mp.expm1(-(root**2)))
    gap = mp.exp(-(root**2)) / (1 + x)  # 1 - x with all its digits
    return mp.findroot(lambda y: mp.log(mp.erfc(y)) - mp.log(gap), root * mpf("0.89")) / x


def over_root(f: Fn) -> Fn:
    """z -> f(sqrt(z)) / sqrt(z): an odd function as a function of the square."""
    return lambda z: f(mp.sqrt(z)) / mp.sqrt(z)


def main() -> None:
    tiny, eps = mpf(10) ** -16, mpf(10) ** -30  # eps: a weight of 0 would make the exchange singular
    print('"""Polynomials and constants of the vector math, computed by scripts/fit_math.py: do not edit.\n')
    print('Coefficients go from the constant term up; "error" is the largest weighted error of the exact polynomial.\n"""\n')

    ln2 = mp.log(2)
    splits("LN2_F32", "log(2)", ln2, (15, 24))
    splits("LN2_F64", "log(2)", ln2, (40, 53))
    splits("HALF_PI_F32", "pi / 2", mp.pi / 2, (24, 24, 24))

    half = ln2 / 2 * mpf("1.002")  # a little more than the reduction leaves
    rest = limited(lambda r: (mp.expm1(r) - r) / r**2, mpf(1) / 2)
    to_exp: Fn = lambda r: r**2 * mp.exp(-r) + eps  # noqa: E731
    to_expm1 = limited(lambda r: abs(r**2 / mp.expm1(r)) + eps, eps)
    table("EXP_F32", "(exp(r) - 1 - r) / r^2, relative to exp", rest, -half, half, 4, to_exp)
    table("EXP_F64", "(exp(r) - 1 - r) / r^2, relative to exp", rest, -half, half, 9, to_exp)
    table("EXPM1_F32", "(exp(r) - 1 - r) / r^2, relative to exp(r) - 1", rest, -half, half, 4, to_expm1)
    table("EXPM1_F64", "(exp(r) - 1 - r) / r^2, relative to exp(r) - 1", rest, -half, half, 10, to_expm1)

    low, high = mp.sqrt(mpf(1) / 2) - 1, mp.sqrt(2) - 1
    cubic = limited(lambda f: (mp.log1p(f) - f + f**2 / 2) / f**3, mpf(1) / 3)
    to_log = limited(lambda f: abs(f**3 / mp.log1p(f)) + eps, eps)
    table("LOG_F32", "(log(1 + f) - f + f^2 / 2) / f^3, relative to log(1 + f)", cubic, low, high, 8, to_log)
    # log(1 + f) = 2 atanh(s) = 2 s + s^3 P(s^2) with s = f / (2 + f)
    odd: Fn = lambda z: (over_root(lambda s: 2 * mp.atanh(s))(z) - 2) / z  # noqa: E731
    table("LOG_F64", "(2 atanh(s) - 2 s) / s^3 in z = s^2, relative to atanh", odd, tiny, (high / (2 + high)) ** 2, 7, lambda z: z)

    eighth = (mp.pi / 4 * mpf("1.01")) ** 2
    table("SIN_F32", "(sin(r) - r) / r^3 in z = r^2, relative to sin",
          lambda z: (over_root(mp.sin)(z) - 1) / z, tiny, eighth, 3, lambda z: z)  # fmt: skip
    table("COS_F32", "(cos(r) - 1 + r^2 / 2) / r^4 in z = r^2",
          lambda z: (mp.cos(mp.sqrt(z)) - 1 + z / 2) / z**2, mpf(10) ** -8, eighth, 2, lambda z: z**2)  # fmt: skip
    table("ASIN_F32", "(asin(s) - s) / s^3 in z = s^2, relative to asin",
          lambda z: (over_root(mp.asin)(z) - 1) / z, tiny, mpf(1) / 4, 5, lambda z: z)  # fmt: skip
    table("ATAN_F32", "(atan(t) - t) / t^3 in z = t^2, relative to atan",
          lambda z: (over_root(mp.atan)(z) - 1) / z, tiny, mpf(1), 8, lambda z: z)  # fmt: skip

    # erf has two pieces, joined at 1
    table("ERF_LOW_F32", "erf(x) / x - 1 in z = x^2, relative to erf",
          lambda z: over_root(mp.erf)(z) - 1, tiny, mpf("1.0002"), 6, lambda z: mpf(1))  # fmt: skip
    table("ERF_HIGH_F32", "log(erfc(x)), as it shows in erf",
          lambda x: mp.log(mp.erfc(x)), mpf("0.999"), mpf("4.1"), 8, mp.erfc)  # fmt: skip
    for name, degree, a, b in (("CENTER", 11, mpf("0.0003"), mp.sqrt(5)), ("TAIL", 11, mp.sqrt(5), mpf("4.2"))):
        if name == "CENTER":
            what, f = "w = -log(1 - x^2) - 2.5", lambda w: inverse_erf(mp.sqrt(w + mpf("2.5")))
            a, b = a**2 - mpf("2.5"), b**2 - mpf("2.5")
        else:
            what, f = "v = sqrt(-log(1 - x^2)) - 3", lambda v: inverse_erf(v + 3)
            a, b = a - 3, b - 3
        table(f"ERFINV_{name}_F32", f"erfinv(x) / x in {what}, absolute", f, a, b, degree, lambda _: mpf(1))
    pieces("NORMAL_CDF_F32", "0.5 erf(a / sqrt(2))", lambda a: mp.erf(a / mp.sqrt(2)) / 2, mpf("0.375"), 15, 5, mpf("0.5"))


if __name__ == "__main__":
    main()
