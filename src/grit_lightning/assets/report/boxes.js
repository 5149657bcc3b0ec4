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
