"use strict";
(() => {
  const every = JSON.parse(document.getElementById("spec-rows").textContent).rows;
  const view = document.getElementById("view"), body = document.getElementById("rows");
  const words = document.getElementById("words"), state = document.getElementById("state");
  const heads = [...document.querySelectorAll("#heads th")], numbers = heads.map((head) => head.classList.contains("n"));
  for (const row of every) row.text = row.cells.map((cell) => cell[0]).join(" ").toLowerCase();
  let chosen = every, height = 34, first = -1, column = -1, rising = true;

  const compare = (one, other) => {
    const [a, b] = [one.cells[column][1], other.cells[column][1]];
    if (a === b) return 0;
    if (a === null || b === null) return a === null ? 1 : -1;  // what is not known comes last, both ways
    const order = typeof a === typeof b && typeof a !== "string" ? a - b : String(a).localeCompare(String(b));
    return rising ? order : -order;
  };
  const element = (name, text) => Object.assign(document.createElement(name), {textContent: text});
  const drawn = (row) => {
    const line = document.createElement("tr");
    line.className = row.state;
    row.cells.forEach(([shown], number) => {
      const cell = element(number ? "td" : "th", number || !row.link ? shown : "");
      if (!number && row.link) cell.append(Object.assign(element("a", shown), {href: row.link}));
      if (!number) cell.scope = "row";
      if (numbers[number]) cell.className = "n";
      cell.title = shown;
      line.append(cell);
    });
    return line;
  };
  const space = (rows) => {
    const line = document.createElement("tr"), cell = document.createElement("td");
    line.className = "space";
    line.style.height = `${rows * height}px`;
    cell.colSpan = heads.length;
    line.append(cell);
    return line;
  };
  const draw = (again) => {
    const fit = Math.ceil(view.clientHeight / height) + 20;
    const from = Math.max(Math.min(Math.floor(view.scrollTop / height) - 10, chosen.length - fit), 0);
    if (from === first && !again) return;
    first = from;
    const some = chosen.slice(from, from + fit).map(drawn);
    body.replaceChildren(space(from), ...some, space(Math.max(chosen.length - from - fit, 0)));
    if (some.length) height = some[0].getBoundingClientRect().height || height;
  };
  const choose = () => {
    const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
    chosen = every.filter((row) => (!state.value || row.state === state.value)
      && wanted.every((word) => row.text.includes(word)));
    if (column >= 0) chosen.sort(compare);
    document.getElementById("count").textContent = `${chosen.length} of ${every.length}`;
    view.scrollTop = 0;
    draw(true);
  };
  heads.forEach((head, number) => head.querySelector("button").addEventListener("click", () => {
    rising = column === number ? !rising : true;
    column = number;
    heads.forEach((other) => other.setAttribute("aria-sort", "none"));
    head.setAttribute("aria-sort", rising ? "ascending" : "descending");
    choose();
  }));
  words.addEventListener("input", choose);
  state.addEventListener("change", choose);
  view.addEventListener("scroll", () => draw(false), {passive: true});
  document.querySelector(".filters").addEventListener("submit", (event) => event.preventDefault());
  const asked = new URLSearchParams(location.hash.slice(1));
  words.value = asked.get("words") || "";
  state.value = asked.get("state") || "";
  choose();
  if (asked.has("sort")) heads[Number(asked.get("sort"))]?.querySelector("button").click();
  if (asked.has("falling")) heads[column]?.querySelector("button").click();
})();
