"use strict";
// Tables whose headings sort them: by the number in data-value where there is one, else by the words.
(() => {
  const words = new Intl.Collator(undefined, { numeric: true });
  const value = (cell) => cell.dataset.value === undefined ? null : Number(cell.dataset.value);

  function sort(table, column, descending) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, number: value(row.cells[column]), text: row.cells[column].textContent }));
    rows.sort((a, b) => a.number === null || b.number === null ? words.compare(a.text, b.text) : a.number - b.number);
    if (descending) rows.reverse();
    body.append(...rows.map((entry) => entry.row));
  }

  for (const table of document.querySelectorAll("[data-sortable]")) {
    const headings = [...table.tHead.rows[0].cells];
    const mark = () => headings.forEach((heading) => heading.setAttribute("aria-sort", heading.dataset.sorted || "none"));
    mark();
    headings.forEach((heading, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.textContent = heading.textContent;
      heading.replaceChildren(button);
      button.addEventListener("click", () => {
        const was = heading.dataset.sorted;
        const numbers = table.tBodies[0].rows.length > 0 && value(table.tBodies[0].rows[0].cells[column]) !== null;
        const now = was ? (was === "descending" ? "ascending" : "descending") : numbers ? "descending" : "ascending";
        headings.forEach((other) => delete other.dataset.sorted);
        heading.dataset.sorted = now;
        mark();
        sort(table, column, now === "descending");
      });
    });
  }
})();
