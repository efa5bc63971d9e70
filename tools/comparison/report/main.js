const report = JSON.parse(document.getElementById("data").textContent);
const scatter = document.querySelector("#scatter .chart");
if (scatter) drawScatter(scatter, report.rows);
if (document.getElementById("look")) new Viewer(report);
