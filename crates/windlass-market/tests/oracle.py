#!/usr/bin/env python3
"""Draws random files for `windlass market replay` and `candles`, and what must come out of them.

oracle.py DIR SEED. Written from the text of the rules, apart from the Rust code: no index, one
position after the other, both sides spelt out.
"""
import csv
import random
import sys
from pathlib import Path

FIELDS = ("id symbol side qty entry open_index sl tp trail_points trail_bps trail_activation trail_step "
          "be_trigger be_offset expires_index").split()
CLOSED = "id index ts_ms reason fill final_stop pnl_points".split()


def write(path, fields, rows):
    with open(path, "w", newline="") as f:
        out = csv.writer(f, lineterminator="\n")
        out.writerow(fields)
        out.writerows([["" if v is None else v for v in row] for row in rows])


class Position:
    def __init__(self, row):
        self.__dict__.update(row)
        self.stop, self.reason = self.sl, "SL"
        self.best, self.even, self.armed = None, False, False
        self.closed = None

    def stop_hit(self, px):
        return self.stop is not None and (px <= self.stop if self.side == 1 else px >= self.stop)

    def target_hit(self, px):
        return self.tp is not None and (px >= self.tp if self.side == 1 else px <= self.tp)

    def tighter(self, level, by):
        return self.stop is None or (level - self.stop if self.side == 1 else self.stop - level) >= by

    def follow(self, px):
        """R4 and R5, after a price that closed nothing."""
        if self.best is None:
            self.best = px
        self.best = max(self.best, px) if self.side == 1 else min(self.best, px)
        if self.be_trigger is not None and not self.even:
            profit = self.best - self.entry if self.side == 1 else self.entry - self.best
            if profit >= self.be_trigger:
                self.even = True
                offset = self.be_offset or 0
                level = self.entry + offset if self.side == 1 else self.entry - offset
                if self.tighter(level, 1):
                    self.stop, self.reason = level, "BE"
        if self.trail_points is None and self.trail_bps is None:
            return
        start = self.trail_activation
        if start is None or (self.best >= start if self.side == 1 else self.best <= start):
            self.armed = True
        if not self.armed:
            return
        if self.trail_points is not None:
            level = self.best - self.trail_points if self.side == 1 else self.best + self.trail_points
        elif self.side == 1:
            level = self.best * (10_000 - self.trail_bps) // 10_000
        else:
            level = (self.best * (10_000 + self.trail_bps) + 9_999) // 10_000
        if self.tighter(level, self.trail_step or 1):
            self.stop, self.reason = level, "TRAIL"

    def close(self, index, ts, reason, fill):
        pnl = (fill - self.entry) * self.side * self.qty
        self.closed = [self.id, index, ts, reason, fill, self.stop, pnl]

    def row(self):
        return self.closed or [self.id, None, None, "OPEN", None, self.stop, None]


def by_quotes(p, quotes):
    last = None
    for symbol, index, ts, seq, bid, ask in quotes:
        if symbol != p.symbol or bid <= 0 or ask < bid or (last is not None and seq <= last):
            continue
        last = seq
        if index < p.open_index:
            continue
        px = bid if p.side == 1 else ask
        if index > p.open_index:
            if p.stop_hit(px):
                return p.close(index, ts, p.reason, px)
            if p.target_hit(px):
                return p.close(index, ts, "TP", px)
            if p.expires_index is not None and index >= p.expires_index:
                return p.close(index, ts, "TIME", px)
        p.follow(px)


def by_bars(p, bars):
    for symbol, index, ts, o, h, l, _, spread in bars:
        if symbol != p.symbol or index < p.open_index:
            continue
        first, worst, best = (o, l, h) if p.side == 1 else (o + spread, h + spread, l + spread)
        if index > p.open_index:
            if p.stop_hit(first):
                return p.close(index, ts, p.reason, first)
            if p.target_hit(first):
                return p.close(index, ts, "TP", first)
            if p.expires_index is not None and index >= p.expires_index:
                return p.close(index, ts, "TIME", first)
        if p.stop_hit(worst):
            return p.close(index, ts, p.reason, p.stop)
        if p.target_hit(best):
            return p.close(index, ts, "TP", p.tp)
        p.follow(best)


def candles(ticks, frame_ms):
    seen, periods = set(), {}
    for symbol, ts, seq, bid, _, volume in ticks:
        if (symbol, seq) in seen:
            continue
        seen.add((symbol, seq))
        periods.setdefault((symbol, ts // frame_ms * frame_ms), []).append((ts, seq, bid, volume))
    for (symbol, start), inside in sorted(periods.items()):
        inside.sort()
        bids = [tick[2] for tick in inside]
        yield [symbol, start, bids[0], max(bids), min(bids), bids[-1], sum(t[3] for t in inside), len(inside)]


def main():
    folder, seed = Path(sys.argv[1]), int(sys.argv[2])
    rnd = random.Random(seed)
    symbols = ["EURUSD", "BTC-PERP", "X.1"]
    quotes, bars, price, seq = [], [], dict(zip(symbols, (107_160, 6_700_000, 400))), 0
    scale = dict(zip(symbols, (3, 300, 1)))
    for index in range(1_500):
        symbol = rnd.choice(symbols)
        step = rnd.randint(-6, 6) * scale[symbol] * (10 if rnd.random() < 0.03 else 1)
        price[symbol] = max(50, price[symbol] + step)
        seq += rnd.choice([1, 1, 1, 2])
        bid, spread = price[symbol], rnd.randint(0, 4) * scale[symbol]
        kind = rnd.random()
        shown = seq - rnd.randint(1, 9) if kind < 0.01 else seq
        ask = bid - 1 if 0.01 <= kind < 0.02 else bid + spread
        quotes.append((symbol, index, index * 250, shown, bid, ask))
    for symbol in symbols:
        at = price[symbol]
        for index in range(300):
            o = max(60, at + rnd.randint(-5, 5) * scale[symbol])
            c = max(60, o + rnd.randint(-20, 20) * scale[symbol])
            h = max(o, c) + rnd.randint(0, 9) * scale[symbol]
            l = max(1, min(o, c) - rnd.randint(0, 9) * scale[symbol])
            bars.append((symbol, index, index * 60_000, o, h, l, c, rnd.randint(0, 3) * scale[symbol]))
            at = c
    some = lambda share, value: value if rnd.random() < share else None
    by_index = {(q[0], q[1]): q for q in quotes}
    rows = []
    for number in range(1, 1_201):
        symbol, side = rnd.choice(symbols), rnd.choice([1, -1])
        k = scale[symbol]
        opening = rnd.randrange(0, 250) if rnd.random() < 0.5 else rnd.randrange(0, 1_400)
        q = by_index.get((symbol, opening)) or next(q for q in quotes if q[0] == symbol)
        entry = max(60, q[5] if side == 1 else q[4])
        trail = rnd.choice(["points", "bps", None, None])
        row = dict(
            id=number * 7, symbol=symbol, side=side, qty=rnd.randint(1, 1000), entry=entry, open_index=opening,
            sl=some(0.7, max(1, entry - side * rnd.randint(-2, 40) * k)),
            tp=some(0.7, max(1, entry + side * rnd.randint(41, 90) * k)) if side == 1
            else some(0.7, max(1, entry - rnd.randint(3, 40) * k)),
            trail_points=rnd.randint(1, 40) * k if trail == "points" else None,
            trail_bps=rnd.randint(1, 200) if trail == "bps" else None,
            trail_activation=some(0.4, max(1, entry + side * rnd.randint(-3, 30) * k)) if trail else None,
            trail_step=some(0.4, rnd.randint(1, 12) * k) if trail else None,
            be_trigger=some(0.3, rnd.randint(1, 30) * k),
            be_offset=None,
            expires_index=some(0.2, opening + rnd.randint(0, 400)),
        )
        row["be_offset"] = some(0.5, rnd.randint(0, 3)) if row["be_trigger"] is not None else None
        rows.append(row)
    write(folder / "positions.csv", FIELDS, [[row[f] for f in FIELDS] for row in rows])
    write(folder / "quotes.csv", "symbol index ts_ms seq bid ask".split(), quotes)
    write(folder / "bars.csv", "symbol index ts_ms o h l c spread".split(), bars)
    for name, run, prices in (("quotes", by_quotes, quotes), ("bars", by_bars, bars)):
        positions = [Position(row) for row in rows]
        for p in positions:
            run(p, prices)
        write(folder / f"closed_by_{name}.csv", CLOSED, [p.row() for p in positions])
    ticks = []
    for number in range(4_000):
        symbol = rnd.choice(symbols)
        bid = price[symbol] + rnd.randint(-30, 30) * scale[symbol] // 3
        bid = max(1, bid)
        ticks.append((symbol, rnd.randint(-100_000, 3_000_000), number, bid, bid + rnd.randint(0, 5), rnd.randint(0, 50)))
    ticks.sort(key=lambda t: t[1] + rnd.randint(-90_000, 90_000))
    delivered = []
    for tick in ticks:
        delivered.append(tick)
        if rnd.random() < 0.1:
            delivered.append(rnd.choice(delivered))
    write(folder / "ticks.csv", "symbol ts_ms seq bid ask volume".split(), delivered)
    for name, ms in (("1m", 60_000), ("5m", 300_000), ("1d", 86_400_000)):
        write(folder / f"candles_{name}.csv", "symbol start_ms o h l c v n".split(), candles(delivered, ms))


main()
