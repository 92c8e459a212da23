// Starts the viewer on our own document; a validator elsewhere is never asked.
// The list of errors is below the reference, whose height is known only when it is drawn.
const wanted = location.hash.startsWith("#errors") ? location.hash.slice(1) : null;

SwaggerUIBundle({
  url: "/api/openapi.json",
  dom_id: "#reference",
  deepLinking: true,
  docExpansion: "list",
  validatorUrl: null,
  presets: [SwaggerUIBundle.presets.apis],
  onComplete: () => {
    if (wanted) {
      requestAnimationFrame(() => setTimeout(() => document.getElementById(wanted)?.scrollIntoView()));
    }
  },
});
