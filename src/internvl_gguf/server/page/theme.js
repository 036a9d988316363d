// Runs before the first paint, so that a page switched to dark does not flash white: it is the one script without `defer`.
try {
  const { theme } = JSON.parse(localStorage.getItem("settings") ?? "{}");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // The browser keeps nothing for this page, or something else wrote there: the system's choice holds.
}
