/* Lets the search find numbers, such as the status 401, which Sphinx's own search leaves out. */
document.addEventListener("DOMContentLoaded", () => {
  if (typeof Search === "undefined") return;
  const parseQuery = Search._parseQuery;
  Search._parseQuery = (query) => {
    const parsed = parseQuery(query);
    const [, searchTerms, , highlightTerms] = parsed;
    for (const number of query.match(/\b\d+\b/g) ?? []) {
      searchTerms.add(number);
      highlightTerms.add(number);
    }
    return parsed;
  };
});
