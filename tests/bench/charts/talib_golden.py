#!/usr/bin/env python3
"""Writes what TA-Lib in C answers for GOOG, as the test of the chart crate reads it.

Needs PyPI TA-Lib and numpy; run from the repository's root:
    python3 tests/bench/charts/talib_golden.py > crates/windlass-chart/tests/chart/data/talib_goog.json
"""
import csv
import json
import sys

import numpy
import talib

rows = list(csv.DictReader(open("crates/windlass-chart/assets/data/GOOG_1d.csv")))
o, h, l, c, v = (numpy.array([float(row[name]) for row in rows]) for name in ("open", "high", "low", "close", "volume"))
upper, middle, lower = talib.BBANDS(c, 20, 2, 2, 0)
macd, signal, histogram = talib.MACD(c, 12, 26, 9)
k, d = talib.STOCH(h, l, c, 14, 3, 0, 3, 0)
columns = {
    "sma_20": talib.SMA(c, 20), "ema_50": talib.EMA(c, 50), "wma_20": talib.WMA(c, 20),
    "bb_20_upper": upper, "bb_20_middle": middle, "bb_20_lower": lower,
    "rsi_14": talib.RSI(c, 14), "macd": macd, "macd_signal": signal, "macd_histogram": histogram,
    "stoch_k": k, "stoch_d": d, "atr_14": talib.ATR(h, l, c, 14), "obv": talib.OBV(c, v),
    "adx_14": talib.ADX(h, l, c, 14), "cci_20": talib.CCI(h, l, c, 20), "mfi_14": talib.MFI(h, l, c, v, 14),
    "donchian_20_upper": talib.MAX(h, 20), "donchian_20_lower": talib.MIN(l, 20),
}
golden = {}
for name, column in columns.items():
    first = int(numpy.argmax(~numpy.isnan(column)))
    wanted = sorted({first, first + 1, first + 2, len(column) - 1} | set(range(first, len(column), 43)))
    golden[name] = {"first": first, "rows": {str(row): float(column[row]) for row in wanted}}
json.dump(golden, sys.stdout, separators=(",", ":"))
print(f"TA-Lib {talib.__ta_version__}, {int((talib.CDLDOJI(o, h, l, c) != 0).sum())} dojis", file=sys.stderr)
