"use strict";
const tip = document.getElementById("tip");
function show(target, x, y) {
  tip.textContent = target.dataset.tip;
  tip.hidden = false;
  const left = Math.min(x + 14, window.innerWidth - tip.offsetWidth - 8);
  tip.style.left = `${Math.max(8, left)}px`;
  tip.style.top = `${Math.max(8, y - tip.offsetHeight - 12)}px`;
}
for (const title of document.querySelectorAll("svg title")) title.remove();
document.addEventListener("pointermove", (event) => {
  const target = event.target.closest("[data-tip]");
  if (target) show(target, event.clientX, event.clientY);
  else tip.hidden = true;
});
document.addEventListener("focusin", (event) => {
  if (!event.target.dataset.tip) return;
  const box = event.target.getBoundingClientRect();
  show(event.target, box.right, box.top);
});
document.getElementById("save").addEventListener("click", () => {
  const data = document.getElementById("report").textContent;
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([data], { type: "application/json" }));
  link.download = "benchmark.json";
  link.click();
});
