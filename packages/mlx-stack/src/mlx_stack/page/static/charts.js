// Three charts as SVG: a stacked bar with limits, a line over time, spans one after the other.

import {svg, h} from './dom.js';

// parts: [{name, value, kind}]; limits: [{name, value}]; both in the unit of `total`
export function stackedBar(parts, total, limits, label) {
  const width = 600, height = 22;
  let at = 0;
  const scale = (value) => Math.min(value / total, 1) * width;
  const bars = parts.map((part, i) => {
    const bar = svg('rect', {x: scale(at), y: 2, width: Math.max(scale(part.value), 0), height: 14,
      class: part.kind || `c-${i % 5}`}, svg('title', null, part.name));
    at += part.value;
    return bar;
  });
  return svg('svg', {viewBox: `0 0 ${width} ${height}`, class: 'stack', role: 'img', 'aria-label': label, preserveAspectRatio: 'none'},
    svg('rect', {x: 0, y: 2, width, height: 14, class: 'c-rest'}), bars,
    limits.map((limit) => svg('line', {x1: scale(limit.value), x2: scale(limit.value), y1: 0, y2: 20, class: 'c-limit'},
      svg('title', null, limit.name))));
}

export function legend(parts) {
  return h('p', {class: 'small dim legend'}, parts.map((part, i) => h('span', null,
    svg('svg', {class: 'key', viewBox: '0 0 8 8', 'aria-hidden': 'true'},
      svg('rect', {width: 8, height: 8, class: part.kind || `c-${i % 5}`})), part.name)));
}

// points: [[x, y]]; marks: [{name, y}] are dashed lines, such as what was predicted; width: of
// where it is shown, in pixels, so that its words are as large as any
export function lineChart(points, {from, to, unit = '', marks = [], dots = false, label, text = String, width}) {
  const height = 150, left = 52, bottom = 20, right = 8;
  const top = niceAbove(Math.max(...points.map((p) => p[1]), ...marks.map((m) => m.y), 0));
  const x = (value) => left + ((value - from) / Math.max(to - from, 1e-9)) * (width - left - right);
  const y = (value) => 14 + (1 - value / top) * (height - bottom - 14);
  const lines = [0, 0.5, 1].map((share) => [
    svg('line', {x1: left, x2: width - right, y1: y(share * top), y2: y(share * top), class: 'c-grid'}),
    svg('text', {x: left - 5, y: y(share * top) + 4, 'text-anchor': 'end'}, short(share * top) + (share === 1 ? unit : ''))]);
  const path = points.map((p, i) => `${i ? 'L' : 'M'}${x(p[0]).toFixed(1)} ${y(p[1]).toFixed(1)}`).join('');
  return svg('svg', {viewBox: `0 0 ${width} ${height}`, role: 'img', 'aria-label': label},
    lines,
    dots ? points.map((p) => svg('circle', {cx: x(p[0]), cy: y(p[1]), r: 2, class: 'c-dot'}))
      : svg('path', {d: path, class: 'c-line'}),
    marks.map((mark) => [
      svg('line', {x1: left, x2: width - right, y1: y(mark.y), y2: y(mark.y), class: 'c-dash'}),
      svg('text', {x: width - right, y: y(mark.y) - 3, 'text-anchor': 'end'}, mark.name)]),
    svg('text', {x: left, y: height - 3}, text(from)),
    svg('text', {x: width - right, y: height - 3, 'text-anchor': 'end'}, text(to)));
}

// spans: [{name, value, kind}]
export function timeline(spans, label) {
  const total = spans.reduce((sum, span) => sum + span.value, 0) || 1;
  return stackedBar(spans, total, [], label);
}

function niceAbove(value) {
  if (value <= 0) return 1;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 2.5, 5, 10].map((each) => each * power).find((each) => each >= value);
}

function short(value) {
  return value >= 1000 ? `${value / 1000}k` : String(Number(value.toPrecision(2)));
}
