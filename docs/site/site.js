// Names and keys for what the theme leaves without: the search, and tables wider than the screen.
// And a browser may end a line after each dash; here `--config` stays whole.
addEventListener("load", () => {
  document.querySelector(".md-search")?.setAttribute("aria-label", "Search");
  for (const code of document.querySelectorAll(".md-typeset :not(pre) > code")) {
    if (code.childElementCount || !code.textContent.includes("--")) continue;
    const parts = code.textContent.split(/(--\w*)/).map((text) => {
      if (!text.startsWith("--")) return text;
      const flag = document.createElement("span");
      flag.className = "dashes";
      flag.textContent = text;
      return flag;
    });
    code.replaceChildren(...parts);
  }
  const wide = () => {
    for (const table of document.querySelectorAll(".md-typeset__scrollwrap")) {
      table.tabIndex = table.scrollWidth > table.clientWidth ? 0 : -1;
    }
  };
  addEventListener("resize", wide);
  requestAnimationFrame(wide);
});
