"""The report's style sheet: one column, system fonts, colours for light and dark, tables that fit a phone.

Contrast of text is at least 4.5 to 1 in both modes; a state has a word beside its colour.
"""

from __future__ import annotations

STYLE = """
:root { color-scheme: light dark;
  --page:#f6f7f9; --card:#fff; --ink:#1c2230; --muted:#5b6472; --rule:#e2e5ea; --wash:#eef1f5;
  --policy:#2456d6; --good:#147a3d; --fair:#97580a; --poor:#b3261e; --calm:#6b7280; --link:#2456d6; }
@media (prefers-color-scheme: dark) { :root {
  --page:#0f1218; --card:#181c25; --ink:#e7eaf0; --muted:#a2abba; --rule:#2b3240; --wash:#212734;
  --policy:#86a8ff; --good:#5cc98a; --fair:#e3ad5c; --poor:#ff8f85; --calm:#98a2b3; --link:#9db8ff; } }
* { box-sizing:border-box }
body { margin:0; background:var(--page); color:var(--ink); overflow-wrap:anywhere;
  font:15px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",sans-serif; }
main, header, footer { max-width:1040px; margin:0 auto; padding:0 20px }
header { padding-top:28px } footer { padding:8px 20px 40px; color:var(--muted); font-size:13px }
h1 { font-size:26px; line-height:1.2; margin:0 } h2 { font-size:17px; margin:0 0 12px } p { margin:0 0 12px }
.muted, .hint { color:var(--muted) } .hint { font-size:13px; margin:10px 0 0 }
.verdict { display:inline-block; margin:14px 0 4px; padding:4px 12px; border-radius:99px; font-weight:600;
  border:1.5px solid currentColor } .verdict.well { color:var(--good) } .verdict.act { color:var(--poor) }
section { background:var(--card); border:1px solid var(--rule); border-radius:12px; padding:18px 20px; margin:16px 0 }
section.act { border-color:var(--poor) }
dl { display:grid; grid-template-columns:repeat(3,minmax(0,1fr)); gap:14px 20px; margin:0 }
dt { color:var(--muted); font-size:13px } dd { margin:0; font-weight:600 } dd small { display:block;
  color:var(--muted); font-weight:400; font-size:13px }
ul.needs { list-style:none; margin:0; padding:0 } .needs li { padding:12px 0; border-top:1px solid var(--rule) }
.needs li:first-child { border-top:0; padding-top:0 } .needs li:last-child { padding-bottom:0 }
.needs b, .needs small { display:block } .needs small { margin-top:2px; font-size:13px } .needs p { margin:2px 0 6px }
code { font:13px/1.5 ui-monospace,SFMono-Regular,Menlo,Consolas,monospace; background:var(--wash); padding:2px 6px;
  border-radius:5px }
.scroll { overflow-x:auto; margin:0 -20px; padding:0 20px } .scroll:focus-visible { outline:2px solid var(--link) }
table { border-collapse:collapse; width:100%; font-size:14px; overflow-wrap:normal }
caption { text-align:left; color:var(--muted); font-size:13px; padding-bottom:8px }
th { text-align:left; font-weight:600; vertical-align:top } thead th { color:var(--muted); font-size:13px;
  border-bottom:1px solid var(--rule); white-space:nowrap; vertical-align:bottom }
th, td { padding:6px 16px 6px 0 } th:last-child, td:last-child { padding-right:0 }
td { vertical-align:top } tbody tr + tr > * { border-top:1px solid var(--rule) }
tbody th { font-weight:500 } .whole { white-space:nowrap }
svg.bar + .scroll { margin-top:14px }
.number { text-align:right; font-variant-numeric:tabular-nums; white-space:nowrap }
.told { min-width:15ch; max-width:52ch; overflow-wrap:anywhere }
.state { white-space:nowrap } .state::before { content:""; display:inline-block; width:9px; height:9px;
  border-radius:50%; margin-right:7px; background:var(--calm) }
.state.good::before { background:var(--good) } .state.fair::before { background:var(--fair) }
.state.poor::before { background:var(--poor) } .state.busy::before { background:var(--policy) }
.legend { display:flex; flex-wrap:wrap; gap:4px 18px; margin:8px 0 14px; font-size:13px }
svg { display:block; width:100%; height:auto } svg.bar { height:12px; border-radius:6px }
svg text { font:12px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif; fill:var(--muted) }
svg .label { font-weight:600 } svg .label.policy { fill:var(--policy) } svg .label.oracle { fill:var(--good) }
svg .label.expert { fill:var(--fair) } svg .grid { stroke:var(--rule) } svg .zero { stroke:var(--calm) }
polyline.policy { fill:none; stroke:var(--policy) } polyline.thin { stroke-width:1; opacity:.45 }
polyline.thick { stroke-width:2.6; stroke-linejoin:round } .dot { fill:var(--policy) }
.reference { stroke-dasharray:6 4; stroke-width:1.4; stroke:var(--calm) } .reference.oracle { stroke:var(--good) }
.reference.expert { stroke:var(--fair) } .mark.forth { fill:var(--good) } .mark.back { fill:var(--poor) }
line.rollback { stroke:var(--poor); stroke-dasharray:3 3 }
.fill-good { fill:var(--good) } .fill-fair { fill:var(--fair) } .fill-poor { fill:var(--poor) }
.fill-busy { fill:var(--policy) } .fill-calm { fill:var(--calm) }
.narrow { display:none } details { margin-top:14px } summary { cursor:pointer; color:var(--link) }
details .scroll { margin-top:12px }
@media (max-width: 640px) {
  main, header, footer { padding-left:12px; padding-right:12px } section { padding:16px 14px; border-radius:10px }
  .scroll { margin:0 -14px; padding:0 14px } .wide { display:none } .narrow { display:block }
  th, td { padding-right:12px } dl { grid-template-columns:repeat(2,minmax(0,1fr)); gap:12px } dd { font-size:14px }
  .stack thead { position:absolute; width:1px; height:1px; overflow:hidden; clip-path:inset(50%) }
  .stack, .stack tbody, .stack caption { display:block } .stack tr { display:flex; flex-wrap:wrap; gap:0 14px;
    padding:8px 0; border-top:1px solid var(--rule) } .stack tr > * { border:0 !important; padding:0 }
  .stack .told { flex-basis:100%; max-width:none } .stack .told:empty, .stack .wide { display:none }
  .stack .number { margin-left:auto } .stack [data-label]::before { content:attr(data-label) " "; color:var(--muted);
    font-size:13px } }
@media print { body { background:#fff } section { break-inside:avoid } }
"""
