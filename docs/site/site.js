// Names and keys for what the theme leaves without: the search, and tables wider than the screen.
addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  const wide = () => {
    for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
      table.tabIndex = table.scrollWidth > table.clientWidth ? 0 : -1;
    }
  };
  addEventListener("resize", wide);
  requestAnimationFrame(wide);
});
