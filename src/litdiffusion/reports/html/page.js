/* Turns the headings of sortable tables into buttons; without this script the table reads as it stands. */
"use strict";
for (const table of document.querySelectorAll("table.sortable")) {
  const body = table.tBodies[0];
  const value = (row, k) => {
    const cell = row.cells[k];
    return "n" in cell.dataset ? Number(cell.dataset.n) : cell.textContent.trim();
  };
  const order = (a, b) => {
    if (typeof a === "number" && typeof b === "number") return a - b;
    return String(a).localeCompare(String(b), "en", { numeric: true });
  };
  [...table.tHead.rows[0].cells].forEach((heading, k) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...heading.childNodes);
    heading.append(button);
    button.addEventListener("click", () => {
      const down = heading.getAttribute("aria-sort") === "ascending";
      for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
      heading.setAttribute("aria-sort", down ? "descending" : "ascending");
      const empty = (row) => value(row, k) === "";
      const rows = [...body.rows].sort((a, b) => order(value(a, k), value(b, k)));
      const full = rows.filter((row) => !empty(row));
      body.append(...(down ? full.reverse() : full), ...rows.filter(empty));
    });
  });
}
