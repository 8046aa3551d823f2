/* How the search ranks pages: guides first, then the reference, then decisions and the libraries' API. */
var Scorer = {
  score: ([docname, , , , score]) => {
    if (docname.startsWith("decisions/")) return score - 20;
    if (docname.startsWith("reference/api/")) return score - 20;
    if (docname.startsWith("reference/")) return score;
    return score + 10;
  },
  objNameMatch: 6,
  objPartialMatch: 3,
  objPrio: { 0: 5, 1: 0, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
