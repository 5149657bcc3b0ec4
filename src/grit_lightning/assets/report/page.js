// The value of the curve that is nearest to the pointer.
for (const figure of document.querySelectorAll("figure")) {
  const svg = figure.querySelector("svg"), dot = figure.querySelector("circle"), note = figure.querySelector(".note");
  const points = [...svg.querySelectorAll("path")].flatMap((path) =>
    path.dataset.points.split(" ").map((text) => ({ path, at: text.split(",").map(Number) })));
  const usual = note.textContent;
  const light = (path) => svg.querySelectorAll("path").forEach((one) => one.classList.toggle("lit", one === path));
  svg.addEventListener("pointermove", (event) => {
    const frame = svg.getBoundingClientRect(), box = svg.viewBox.baseVal;
    const x = ((event.clientX - frame.left) / frame.width) * box.width;
    const y = ((event.clientY - frame.top) / frame.height) * box.height;
    // The step first, then the line: values of other steps do not matter.
    const distance = ({ at }) => 1000 * Math.abs(at[0] - x) + Math.abs(at[1] - y);
    const near = points.reduce((best, one) => (distance(one) < distance(best) ? one : best));
    dot.setAttribute("cx", near.at[0]);
    dot.setAttribute("cy", near.at[1]);
    dot.removeAttribute("hidden");
    const label = near.path.dataset.label;
    note.textContent = `${label ? label + ", " : ""}step ${near.at[2]}: ${near.at[3]}`;
    if (label) light(near.path);
  });
  svg.addEventListener("pointerleave", () => {
    dot.setAttribute("hidden", "");
    note.textContent = usual;
    light(null);
  });
}
// Tables are sorted by a click on a heading.
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0], heads = [...table.tHead.rows[0].cells];
  const value = (row, index) => {
    const text = row.cells[index].textContent.trim();
    return text === "" || isNaN(text) ? text : Number(text);
  };
  heads.forEach((head, index) => {
    const button = document.createElement("button");
    button.textContent = head.textContent;
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.ariaSort === "ascending";
      heads.forEach((one) => (one.ariaSort = null));
      head.ariaSort = down ? "descending" : "ascending";
      const compare = (a, b) => {
        const [x, y] = [value(a, index), value(b, index)];
        if (x === "" || y === "") return (x === "") - (y === "");  // cells without a value stay last
        return (typeof x === "number" && typeof y === "number" ? x - y : String(x).localeCompare(y)) * (down ? -1 : 1);
      };
      body.append(...[...body.rows].sort(compare));
    });
  });
}
// Filters and order of answers and rollouts.
for (const form of document.querySelectorAll("form.filter")) {
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  const section = form.parentElement;
  const groups = [...section.querySelectorAll(".group")];
  const original = new Map(groups.map((group) => [group, [...group.querySelectorAll(".completion")]]));
  const number = (text) => (text === "" ? -Infinity : Number(text));
  const apply = () => {
    const wanted = Object.fromEntries(new FormData(form));
    const same = (data, keys) => keys.every((key) => !wanted[key] || data[key] === wanted[key]);
    const reaches = (data) => ["reward", "advantage"].every((key) => !wanted[key] || number(data[key]) >= wanted[key]);
    let count = 0;
    for (const group of groups) {
      const ofGroup = same(group.dataset, ["sample", "dataset", "kind"]);
      let any = false;
      for (const one of original.get(group)) {
        const fits = ofGroup && same(one.dataset, ["right", "invalid"]) && reaches(one.dataset);
        one.toggleAttribute("data-out", !fits);
        any = any || fits;
        count += fits;
      }
      group.toggleAttribute("data-out", !any);
      if (!("order" in wanted)) continue;
      const ordered = [...original.get(group)];
      const value = (one) => number(one.dataset[wanted.order]);
      if (wanted.order) ordered.sort((a, b) => value(b) - value(a));
      group.append(...ordered);
    }
    for (const step of section.querySelectorAll("details")) {
      const left = step.querySelector(".group:not([data-out])");
      step.toggleAttribute("data-out", !left);
      if (wanted.sample && left) step.open = true;
    }
    form.querySelector("output").textContent = `${count} completions`;
  };
  form.addEventListener("input", apply);
  apply();
}
