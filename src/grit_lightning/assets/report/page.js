"use strict";
// Boxes and the words that write them light up together.
for (const kind of ["mouseover", "mouseout", "focusin", "focusout"]) {
  document.addEventListener(kind, (event) => {
    const hit = event.target.closest("[data-box]");
    if (!hit) return;
    const on = kind === "mouseover" || kind === "focusin";
    for (const one of hit.closest(".completion").querySelectorAll(`[data-box="${hit.dataset.box}"]`)) {
      one.classList.toggle("lit", on);
    }
  });
}
// The value of a curve at the pointer.
for (const figure of document.querySelectorAll("figure[data-points]")) {
  const points = figure.dataset.points.split(" ").map((text) => text.split(",").map(Number));
  const svg = figure.querySelector("svg"), dot = figure.querySelector("circle"), note = figure.querySelector(".note");
  const usual = note.textContent;
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect();
    const x = ((event.clientX - frame.left) / frame.width) * svg.viewBox.baseVal.width;
    const near = points.reduce((best, one) => (Math.abs(one[0] - x) < Math.abs(best[0] - x) ? one : best));
    dot.setAttribute("cx", near[0]);
    dot.setAttribute("cy", near[1]);
    dot.removeAttribute("hidden");
    note.textContent = `step ${near[2]}: ${near[3]}`;
  });
  svg.addEventListener("pointerleave", () => {
    dot.setAttribute("hidden", "");
    note.textContent = usual;
  });
}
// Filters and order of the rollouts.
const form = document.getElementById("filter");
if (form) {
  form.hidden = false;
  const groups = [...document.querySelectorAll("#rollouts .group")];
  const original = new Map(groups.map((group) => [group, [...group.querySelectorAll(".completion")]]));
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    let count = 0;
    for (const group of groups) {
      const ofGroup = ["sample", "dataset"].every((key) => !wanted[key] || group.dataset[key] === wanted[key]);
      let any = false;
      for (const one of original.get(group)) {
        const fits = ofGroup && ["right", "invalid"].every((key) => !wanted[key] || one.dataset[key] === wanted[key]);
        one.toggleAttribute("data-out", !fits);
        any = any || fits;
        count += fits;
      }
      group.toggleAttribute("data-out", !any);
      const value = (one) => (one.dataset[wanted.order] === "" ? -Infinity : Number(one.dataset[wanted.order]));
      const ordered = [...original.get(group)];
      if (wanted.order) ordered.sort((a, b) => value(b) - value(a));
      group.append(...ordered);
    }
    for (const step of document.querySelectorAll("#rollouts details")) {
      const left = step.querySelector(".group:not([data-out])");
      step.toggleAttribute("data-out", !left);
      if (wanted.sample && left) step.open = true;
    }
    form.querySelector("output").textContent = `${count} completions`;
  };
  form.addEventListener("change", apply);
  apply();
}
