// Elements made from values. Text is only ever set as text: nothing here parses HTML.

const SVG = 'http://www.w3.org/2000/svg';

// h('p', {class: 'dim', onclick: f, hidden: false}, 'text', child, [more], null)
export function h(tag, props, ...children) {
  return fill(document.createElement(tag), props, children);
}

export function svg(tag, props, ...children) {
  return fill(document.createElementNS(SVG, tag), props, children);
}

function fill(node, props, children) {
  for (const [name, value] of Object.entries(props || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith('on')) node.addEventListener(name.slice(2), value);
    else if (name === 'value' || name === 'checked' || name === 'selected') node[name] = value;
    else node.setAttribute(name, value === true ? '' : value);
  }
  node.append(...clean(children));
  return node;
}

function clean(children) {
  return children.flat(Infinity).filter((each) => each !== null && each !== undefined && each !== false);
}

// Replaces what is in a node; the focus stays on what has the same data-key.
export function refill(node, ...children) {
  const active = document.activeElement;
  const key = node.contains(active) ? active.dataset.key : null;
  node.replaceChildren(...clean(children));
  if (key) node.querySelector(`[data-key="${CSS.escape(key)}"]`)?.focus();
}

// columns: [title, cell(row), {num, class}]
export function table(columns, rows, {empty = 'Nothing yet.', label} = {}) {
  if (!rows.length) return h('p', {class: 'empty'}, empty);
  const kind = (options = {}) => [options.num && 'num', options.class].filter(Boolean).join(' ') || null;
  return h('div', {class: 'scroll', tabindex: '0', role: 'group', 'aria-label': label || 'Table'},
    h('table', null,
      h('thead', null, h('tr', null, columns.map(([title, , options]) =>
        (title ? h('th', {class: kind(options), scope: 'col'}, title) : h('td'))))),
      h('tbody', null, rows.map((row) => h('tr', null, columns.map(([, cell, options]) =>
        h('td', {class: kind(options)}, cell(row))))))));
}

export function facts(pairs) {
  return h('dl', {class: 'facts'}, pairs.filter((pair) => pair && pair[1] !== null && pair[1] !== undefined)
    .map(([name, value, kind]) => h('div', null, h('dt', null, name), h('dd', {class: kind}, value))));
}

export function section(title, size, ...children) {
  return h('section', {class: size, 'aria-label': title}, h('h2', null, title), children);
}

export function choice(label, options, value, onchange, key) {
  const pairs = options.map((each) => (Array.isArray(each) ? each : [each, each]));
  return h('label', null, label, h('select', {onchange: (event) => onchange(event.target.value), 'data-key': key},
    pairs.map(([name, text]) => h('option', {value: name, selected: name === value}, text))));
}

// Asks in a dialog; gives the fields' values, or null.
export function ask(title, text, fields = [], yes = 'OK') {
  return new Promise((resolve) => {
    const inputs = fields.map((field) => h('input', {name: field.name, value: field.value || '',
      placeholder: field.placeholder, autocomplete: 'off', 'aria-label': field.label}));
    const form = h('form', {method: 'dialog'},
      h('h1', null, title), h('p', null, text),
      fields.map((field, i) => h('label', null, field.label, inputs[i])),
      h('div', {class: 'bar'}, h('button', {value: 'no', formnovalidate: true, type: 'button',
        onclick: () => dialog.close('no')}, 'Cancel'), h('button', {value: 'yes', class: 'main'}, yes)));
    const dialog = h('dialog', {'aria-label': title}, form);
    dialog.addEventListener('close', () => {
      dialog.remove();
      const values = Object.fromEntries(inputs.map((each) => [each.name, each.value.trim()]));
      resolve(dialog.returnValue === 'yes' ? values : null);
    });
    document.body.append(dialog);
    dialog.showModal();
  });
}

// Figures in words

export function bytes(value) {
  if (value === null || value === undefined) return '?';
  for (const [unit, size] of [['TB', 1e12], ['GB', 1e9], ['MB', 1e6], ['kB', 1e3]]) {
    if (value >= size) return `${(value / size).toFixed(value >= 100 * size || unit === 'kB' ? 0 : 1)} ${unit}`;
  }
  return `${value} B`;
}

export function seconds(value) {
  if (value === null || value === undefined) return '';
  if (value < 1) return `${Math.round(value * 1000)} ms`;
  if (value < 60) return `${value.toFixed(1)} s`;
  if (value < 3600) return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
  if (value < 86400) return `${Math.floor(value / 3600)} h ${Math.floor((value % 3600) / 60)} min`;
  return `${Math.floor(value / 86400)} d ${Math.floor((value % 86400) / 3600)} h`;
}

export function figure(value) {
  if (value === null || value === undefined) return '';
  return value >= 100 ? Math.round(value).toLocaleString('en') : Number(value.toPrecision(3)).toString();
}

export function count(value) {
  return value === null || value === undefined ? '?' : value.toLocaleString('en');
}

export function clock(iso) {
  const at = new Date(iso), now = new Date();
  const time = at.toLocaleTimeString([], {hour12: false});
  return at.toDateString() === now.toDateString() ? time
    : `${at.toLocaleDateString([], {month: 'short', day: 'numeric'})} ${time}`;
}
