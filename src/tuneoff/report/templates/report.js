// Puts the interactive chart in place of each static one. Nothing is loaded.
document.querySelectorAll(".chart").forEach(function (figure) {
  const spec = JSON.parse(figure.querySelector("script").textContent);
  const place = document.createElement("div");
  const still = figure.querySelector(".still");
  still.after(place);
  vegaEmbed(place, spec, {
    mode: "vega-lite",
    renderer: "svg",
    actions: false,
    ast: true, // expressions are interpreted, so the page needs no eval
    tooltip: { disableDefaultStyle: true },
  }).then(
    function () { still.remove(); },
    function () { place.remove(); }
  );
});
