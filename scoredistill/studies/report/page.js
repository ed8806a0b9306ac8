// The chooser of learning curves: one figure at a time.
const chooser = document.querySelector("#curve");
chooser?.addEventListener("change", () => {
  for (const figure of document.querySelectorAll("[data-curve]")) figure.hidden = figure.dataset.curve !== chooser.value;
});
