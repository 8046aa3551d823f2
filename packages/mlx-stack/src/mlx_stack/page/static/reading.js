// What reads and writes nothing: two texts and how alike they are, and texts in order.

import {askModel} from './api.js';
import {count, facts, h, seconds, table} from './dom.js';
import {trial} from './trial.js';

const field = (label, node) => h('label', null, label, node);
const first = h('textarea', {required: true}), second = h('textarea', {required: true});

export const compare = trial({
  role: 'embedding', title: 'Compare two texts', verb: 'Compare',
  fields: h('div', {class: 'pair'}, field('First text', first), field('Second text', second)),
  async run(model, signal) {
    const began = performance.now();
    const answer = await askModel('embeddings', {model, input: [first.value, second.value]}, signal);
    const found = await answer.json();
    const [a, b] = [0, 1].map((index) => found.data.find((each) => each.index === index).embedding);
    const alike = cosine(a, b);
    return [h('p', {class: 'large'}, 'Similarity ', h('strong', null, alike.toFixed(3)), ' ',
      h('meter', {min: 0, max: 1, value: Math.max(alike, 0), 'aria-label': 'Similarity'})),
    h('p', {class: 'small dim'}, 'The cosine of the angle between their vectors: 1 for the same meaning. What counts as unrelated ' +
      'depends on the model; compare with a pair that has nothing in common.'),
    facts([['Dimensions', count(a.length)], ['Tokens', count(found.usage?.prompt_tokens)], took(began)])];
  },
});

const query = h('input', {required: true, autocomplete: 'off'}), texts = h('textarea', {required: true, rows: 6});

export const order = trial({
  role: 'rerank', title: 'Order texts by a query', verb: 'Order',
  fields: [field('Query', query), field('Texts, one a line', texts)],
  async run(model, signal) {
    const documents = texts.value.split('\n').map((each) => each.trim()).filter(Boolean);
    if (!documents.length) throw new Error('Enter at least one text.');
    const began = performance.now();
    const answer = await askModel('rerank', {model, query: query.value, documents}, signal);
    const found = await answer.json();
    return [table([
      ['', (row) => row.rank, {num: true, class: 'dim'}],
      ['Score', (row) => row.relevance_score.toFixed(4), {num: true}],
      ['Text', (row) => documents[row.index], {class: 'wrap wide'}],
    ], found.results.map((row, i) => ({...row, rank: i + 1})), {label: 'Texts in order'}),
    facts([['Texts', count(documents.length)], ['Tokens', count(found.usage?.total_tokens)], took(began)])];
  },
});

const took = (began) => ['Took', seconds((performance.now() - began) / 1000)];

function cosine(a, b) {
  let dot = 0, left = 0, right = 0;
  for (let i = 0; i < a.length; i += 1) {
    dot += a[i] * b[i];
    left += a[i] ** 2;
    right += b[i] ** 2;
  }
  return dot / Math.sqrt(left * right || 1);
}
