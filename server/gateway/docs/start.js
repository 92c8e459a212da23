// Starts the viewer on our own document; a validator elsewhere is never asked.
SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
});

// The list of errors is below the reference, whose height is known only when it is drawn.
addEventListener("load", () => {
  if (location.hash.startsWith("#errors")) {
    setTimeout(() => document.getElementById(location.hash.slice(1))?.scrollIntoView(), 500);
  }
});
