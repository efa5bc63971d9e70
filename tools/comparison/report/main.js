const report = JSON.parse(document.getElementById("data").textContent);
const charts = {
  "#scatter .chart": drawScatter,
  "#by-sequence .chart": drawBySequence,
};
for (const [selector, drawChart] of Object.entries(charts)) {
  const holder = document.querySelector(selector);
  if (holder) drawChart(holder, report.rows.filter((row) => row.accuracy !== null));
}
if (document.getElementById("look")) new Viewer(report);
