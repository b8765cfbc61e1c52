"""The page's style: readable on screens of any width and on A4."""

from typing import Final

STYLE: Final = """
:root{--ink:#1b2430;--soft:#5b6675;--rule:#d8dee6;--paper:#fff;--tint:#f4f6f9}
*{box-sizing:border-box}
body{margin:0;background:var(--tint);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,sans-serif}
main{max-width:1080px;margin:0 auto;padding:24px 16px 64px}
header h1{margin:0;font-size:1.9rem;overflow-wrap:anywhere}
header p{margin:4px 0 16px;color:var(--soft);overflow-wrap:anywhere}
section{background:var(--paper);border:1px solid var(--rule);border-radius:10px;
padding:16px 20px;margin:0 0 16px}
h2{font-size:1.15rem;margin:0 0 8px}
.note{color:var(--soft);font-size:.92rem;margin:0 0 12px;max-width:75ch}
.tiles{display:grid;grid-template-columns:repeat(auto-fit,minmax(190px,1fr));gap:12px}
.tile{background:var(--tint);border-radius:8px;padding:12px 14px}
.tile span,.tile small{display:block;color:var(--soft);font-size:.85rem}
.tile strong{font-size:1.6rem;font-variant-numeric:tabular-nums}
aside{border-left:6px solid;border-radius:8px;padding:12px 16px;margin:0 0 14px}
aside ul{margin:0;padding-left:20px}
.serious{background:#fdeceb;border-color:#b3261e}
.serious h2{color:#8c1d18;font-size:1.35rem}
aside.note{background:#fff6e0;border-color:#c98a00;color:var(--ink);max-width:none}
.wide{overflow-x:auto}
table{border-collapse:collapse;width:100%;font-size:.9rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 10px;text-align:right;border-bottom:1px solid var(--rule);vertical-align:top}
th:first-child{text-align:left}
thead th{color:var(--soft);font-weight:600}
td:last-child{white-space:normal}
figure{margin:0}
svg{width:100%;height:auto;display:block}
.charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(280px,1fr));gap:12px}
.grid{stroke:#e3e8ee}.frame{stroke:#8894a4}
.threshold{stroke:#1b2430;stroke-dasharray:5 4}
.whisker{stroke-width:3}
.tick{font-size:11px;fill:#5b6675}.axis{font-size:12px;fill:#1b2430}
.legend{font-size:13px;fill:#1b2430}
.genuine{fill:#0072B2;fill-opacity:.55;stroke:#0072B2}
.impostor{fill:#D55E00;fill-opacity:.45;stroke:#D55E00}
@media print{@page{size:A4;margin:14mm}body{background:#fff;font-size:11px}
main{padding:0;max-width:none}section{break-inside:avoid;border:0;padding:6px 0}
table{font-size:9px}th,td{padding:3px 4px}.note{font-size:10px}.wide{overflow:visible}
*{print-color-adjust:exact;-webkit-print-color-adjust:exact}}
"""
