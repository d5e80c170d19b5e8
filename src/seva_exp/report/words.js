"use strict";
// A word that is pointed at, tapped or focused shows its map and its numbers. Every map stands in
// the page already; without this they stand below each other.
(() => {
  document.documentElement.classList.add("js");

  function serve(answer) {
    const words = [...answer.querySelectorAll("[role=option]")];
    const rows = [...answer.querySelectorAll(".row-of-maps")];
    const without = rows.find((row) => row.classList.contains("without"));
    const live = answer.querySelector(".live");
    let chosen = -1;

    function choose(place, focused) {
      const word = words[place];
      if (focused && document.activeElement !== word) word.focus();
      if (place === chosen) return;
      chosen = place;
      const number = word.dataset.word;
      words.forEach((one, i) => {
        one.tabIndex = i === place ? 0 : -1;
        one.setAttribute("aria-selected", String(i === place));
      });
      for (const one of answer.querySelectorAll(".w")) {
        one.classList.toggle("chosen", one.dataset.word === number);
      }
      const own = rows.filter((row) => row.dataset.word === number);
      for (const row of rows) row.hidden = own.length ? !own.includes(row) : row !== without;
      const name = document.createElement("b");
      name.textContent = word.textContent;
      live.replaceChildren(name, ` · ${word.dataset.told}`);
    }

    function step(event, place) {
      const way = getComputedStyle(words[place].parentElement).direction === "rtl" ? -1 : 1;
      const mapped = (from, by) => {
        for (let i = from + by; i >= 0 && i < words.length; i += by) {
          if ("mapped" in words[i].dataset) return i;
        }
        return from;
      };
      switch (event.key) {
        case "ArrowRight": return place + way;
        case "ArrowLeft": return place - way;
        case "ArrowDown": return mapped(place, 1);
        case "ArrowUp": return mapped(place, -1);
        case "Home": return 0;
        case "End": return words.length - 1;
        default: return -1;
      }
    }

    answer.addEventListener("pointerover", (event) => {
      const word = event.target.closest(".w");
      if (word && event.pointerType !== "touch") choose(placeOf(word), false);
    });
    answer.addEventListener("click", (event) => {
      const word = event.target.closest(".w");
      if (word) choose(placeOf(word), true);
    });
    words.forEach((word, place) => {
      word.addEventListener("focus", () => choose(place, false));
      word.addEventListener("keydown", (event) => {
        if (event.altKey || event.ctrlKey || event.metaKey) return;
        const next = step(event, place);
        if (next === -1 && !event.key.startsWith("Arrow")) return;
        event.preventDefault();
        choose(Math.min(words.length - 1, Math.max(0, next)), true);
      });
    });
    const placeOf = (word) => words.findIndex((one) => one.dataset.word === word.dataset.word);
    live.hidden = !words.length;
    if (words.length) choose(Number(answer.dataset.chosen), false);
  }

  document.querySelectorAll("[data-answer]").forEach(serve);
  for (const slider of document.querySelectorAll(".slider input")) {
    const worse = slider.closest(".seen").querySelector(".worse");
    const show = () => {
      worse.setAttribute("opacity", slider.value / 100);
      slider.setAttribute("aria-valuetext", `${slider.value} %`);
    };
    slider.addEventListener("input", show);
    show();
  }
})();
