'use strict';
// Draws what the JSON beside it says: tables, charts and one page a sample. Nothing is loaded.

const data = JSON.parse(document.getElementById('data').textContent);
const byId = id => document.getElementById(id);

// --- making elements -------------------------------------------------------------------------

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.flat().filter(child => child !== null && child !== undefined));
  return element;
}
const html = (tag, attributes, ...children) =>
  fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  fill(document.createElementNS('http://www.w3.org/2000/svg', tag), attributes, children);

function select(label, choices, chosen, change) {
  const options = choices.map(([value, text]) => {
    const option = html('option', {value}, text);
    option.selected = String(value) === String(chosen);
    return option;
  });
  const control = html('select', {onchange: event => change(event.target.value)}, options);
  return html('label', {}, label + ' ', control);
}

// --- writing figures -------------------------------------------------------------------------

const known = value => value !== null && value !== undefined;
const percent = (value, digits = 1) => known(value) ? (100 * value).toFixed(digits) : '';
const signed = value => (value > 0 ? '+' : '') + (100 * value).toFixed(1);
const count = value => known(value) ? Math.round(value).toLocaleString('en-US') : '';
const lengthName = n => n === 0 ? 'as in the file' : n.toLocaleString('en-US') + ' tokens';

function bytes(value) {
  if (!known(value)) return '';
  const units = ['B', 'KB', 'MB', 'GB'];
  let unit = 0;
  for (; value >= 1000 && unit < 3; ++unit) value /= 1000;
  return value.toFixed(unit === 0 ? 0 : value < 10 ? 2 : 1) + ' ' + units[unit];
}

function time(ns) {
  if (!known(ns)) return '';
  return ns < 1e6 ? (ns / 1e3).toFixed(0) + ' us' : (ns / 1e6).toFixed(2) + ' ms';
}

function interval(e, write) {
  return known(e) ? `${write(e.mean)} [${write(e.low)}, ${write(e.high)}]` : '';
}

// --- what there is ---------------------------------------------------------------------------

const unique = values => [...new Set(values)];
const lengths = unique(data.rows.map(row => row.n_ctx));
const rowsOf = n => data.rows.filter(row => row.n_ctx === n);
const tasksOf = n => unique(rowsOf(n).flatMap(row => Object.keys(row.tasks)));
const seriesName = row => row.method + (row.dense_layers ? ` +${row.dense_layers}` : '');
const methods = unique(data.rows.map(row => row.method));
const hue = method => Math.round(methods.indexOf(method) * 360 / methods.length + 210) % 360;
const reads = row => known(row.attend_bytes) ? row.choose_bytes + row.attend_bytes : null;

const state = {
  length: lengths[0], task: 'mean', hidden: new Set(), metric: 'recall', heads: 0,
  sample: 0, layer: null, head: -1, method: null,
};

// --- the table ---------------------------------------------------------------------------------

const columns = [
  ['method', row => row.method, 'method'],
  ['budget', row => row.budget || 'all', 'budget'],
  ['dense layers', row => known(row.dense_layers) ? row.dense_layers : '', 'dense_layers'],
  ['n', row => known(row.mean) ? count(row.mean.n) : '', 'n'],
  ['mean, %', row => interval(row.mean, percent), 'mean'],
  ['to dense, points', row => interval(row.difference, signed), 'difference'],
  ['verdict', row => row.verdict || '', 'verdict'],
  ['to choose', row => bytes(row.choose_bytes), 'choose_bytes'],
  ['to attend', row => bytes(row.attend_bytes), 'attend_bytes'],
  ['of dense, %', row => percent(row.share_of_bytes), 'share_of_bytes'],
  ['mass kept, %', row => percent(row.kept.all), 'kept'],
  ['of far keys, %', row => percent(row.kept.far), 'kept_far'],
  ['recall, %', row => percent(row.recall.all), 'recall'],
  ['of far keys, %', row => percent(row.recall.far), 'recall_far'],
  ['time per step', row => time(row.ns_per_step), 'ns_per_step'],
];

function table(n) {
  const tasks = tasksOf(n);
  const all = columns.concat(tasks.map(task =>
    [task, row => known(row.tasks[task]) ? percent(row.tasks[task].mean) : '', 'task:' + task]));
  const line = row => html('tr', {'data-row': row.id, class: row.method === 'dense' ? 'dense' : ''},
    all.map(([title, write, key]) => html('td', {'data-key': key}, String(write(row)))));
  return html('div', {class: 'scroll', tabindex: 0, role: 'region', 'aria-label': lengthName(n)},
    html('table', {'data-length': n},
      html('caption', {}, `${lengthName(n)}; bytes per decode step and sparse layer; ` +
        '95 % intervals over documents; tasks in percent'),
      html('thead', {}, html('tr', {}, all.map(([title]) => html('th', {scope: 'col'}, title)))),
      html('tbody', {}, rowsOf(n).map(line))));
}

function drawSummary() {
  const section = byId('summary');
  section.append(html('p', {class: 'note'},
    '"As good" is said only where the interval of the paired difference to dense attention lies ' +
    'inside ±1 point; "worse" and "better" where it excludes 0; "open" otherwise.'));
  for (const n of lengths) section.append(table(n));
}

// --- charts ------------------------------------------------------------------------------------

const box = {width: 620, height: 360, left: 52, right: 16, top: 14, bottom: 44};

function ticks(low, high, log) {
  if (!log) return [0, 1, 2, 3, 4, 5].map(i => low + (high - low) * i / 5);
  const marks = [];
  for (let x = 2 ** Math.ceil(Math.log2(low)); x <= high; x *= 2) marks.push(x);
  const every = Math.ceil(marks.length / 7);
  return marks.filter((_, i) => i % every === 0);
}

function scale(low, high, from, to, log) {
  const at = log ? Math.log : x => x;
  const range = at(high) - at(low) || 1;
  return x => from + (to - from) * (at(x) - at(low)) / range;
}

function axes(chart, x, y, xs, ys, options) {
  for (const value of ticks(...ys, false)) {
    chart.append(svg('line', {class: 'grid', x1: box.left, x2: box.width - box.right, y1: y(value), y2: y(value)}),
      svg('text', {x: box.left - 6, y: y(value) + 4, 'text-anchor': 'end'}, options.writeY(value)));
  }
  for (const value of ticks(...xs, options.log)) {
    chart.append(svg('line', {class: 'grid', x1: x(value), x2: x(value), y1: box.top, y2: box.height - box.bottom}),
      svg('text', {x: x(value), y: box.height - box.bottom + 17, 'text-anchor': 'middle'}, options.writeX(value)));
  }
  chart.append(svg('text', {x: (box.left + box.width) / 2, y: box.height - 8, 'text-anchor': 'middle'}, options.xLabel));
}

function drawSeries(one, x, y) {
  const group = svg('g', {class: 'series', style: `--hue:${one.hue}`, 'data-series': one.name});
  const path = one.points.map((p, i) => `${i ? 'L' : 'M'}${x(p.x).toFixed(1)} ${y(p.y).toFixed(1)}`).join('');
  group.append(svg('path', {d: path, 'stroke-dasharray': one.dashed ? '6 4' : null}));
  for (const p of one.points) {
    if (known(p.low)) group.append(svg('line', {class: 'bar', x1: x(p.x), x2: x(p.x), y1: y(p.low), y2: y(p.high)}));
    group.append(svg('circle', {class: 'dot', cx: x(p.x), cy: y(p.y), r: 4.5, tabindex: 0,
      'data-x': p.x, 'data-y': p.y}, svg('title', {}, p.label)));
  }
  return group;
}

// options: name, log, xLabel, writeX, writeY, top (of y), rule (a horizontal line) and series.
function chart(options) {
  const points = options.series.flatMap(one => one.points);
  const values = points.map(p => p.x);
  const xs = [Math.min(...values), Math.max(...values)], ys = [0, options.top];
  const x = scale(...xs, box.left + 10, box.width - box.right - 10, options.log);
  const y = scale(...ys, box.height - box.bottom, box.top, false);
  const drawn = svg('svg', {class: 'chart', viewBox: `0 0 ${box.width} ${box.height}`, role: 'img',
    'aria-label': options.name});
  if (points.length === 0) return drawn;
  axes(drawn, x, y, xs, ys, options);
  if (known(options.rule)) {
    drawn.append(svg('line', {class: 'rule', x1: box.left, x2: box.width - box.right, y1: y(options.rule), y2: y(options.rule)}),
      svg('text', {x: box.left + 4, y: y(options.rule) - 5}, 'dense'));
  }
  for (const one of options.series) drawn.append(drawSeries(one, x, y));
  return drawn;
}

function legend(series, redraw) {
  return html('div', {class: 'legend', role: 'group', 'aria-label': 'Methods shown'}, series.map(one =>
    html('button', {type: 'button', style: `--hue:${one.hue}`, class: one.dashed ? 'dashed' : '',
      'data-legend': one.name, 'aria-pressed': String(!state.hidden.has(one.name)),
      onclick: () => {
        if (!state.hidden.delete(one.name)) state.hidden.add(one.name);
        redraw();
        document.querySelector(`[data-legend="${CSS.escape(one.name)}"]`).focus();
      }}, one.name)));
}

// One line a method and number of dense layers, over what xOf says of a row.
function accuracySeries(xOf, writeX) {
  const series = new Map();
  for (const row of rowsOf(state.length)) {
    const e = state.task === 'mean' ? row.mean : row.tasks[state.task];
    const x = xOf(row);
    if (!known(e) || !known(row.budget) || !(x > 0)) continue;
    const name = seriesName(row);
    if (!series.has(name)) {
      series.set(name, {name, hue: hue(row.method), dashed: row.dense_layers > 0, points: []});
    }
    series.get(name).points.push({x, y: e.mean, low: e.low, high: e.high,
      label: `${name}, budget ${row.budget}, ${writeX(x)}: ${interval(e, percent)} %`});
  }
  for (const one of series.values()) one.points.sort((a, b) => a.x - b.x);
  return [...series.values()];
}

function accuracyChart(caption, xLabel, xOf, writeX) {
  const dense = rowsOf(state.length).find(row => row.id === 'dense');
  const e = dense && (state.task === 'mean' ? dense.mean : dense.tasks[state.task]);
  const all = accuracySeries(xOf, writeX);
  return html('figure', {}, html('figcaption', {}, caption), chart({
    name: `${caption}, ${state.task}, ${lengthName(state.length)}`, log: true, xLabel, writeX,
    writeY: value => percent(value, 0) + ' %', top: 1, rule: e ? e.mean : null,
    series: all.filter(one => !state.hidden.has(one.name))}));
}

function drawCharts() {
  const section = byId('charts');
  section.replaceChildren(section.firstElementChild);
  const tasks = ['mean', ...tasksOf(state.length)];
  if (!tasks.includes(state.task)) state.task = 'mean';
  section.append(
    html('div', {class: 'controls'},
      select('Length', lengths.map(n => [n, lengthName(n)]), state.length,
        value => { state.length = Number(value); drawCharts(); }),
      select('Task', tasks.map(task => [task, task]), state.task,
        value => { state.task = value; drawCharts(); })),
    html('div', {class: 'pair'},
      accuracyChart('Accuracy against budget', 'keys attended to, per row', row => row.keys, count),
      accuracyChart('Accuracy against bytes read', 'bytes to choose and to attend, per step and sparse layer', reads, bytes)),
    legend(accuracySeries(row => row.keys, count), drawCharts),
    html('p', {class: 'note'}, 'Bars: 95 % intervals. Dashed: with dense layers (+2: the first two).'));
}

// --- heat map ----------------------------------------------------------------------------------

const metrics = [['recall', 'recall of the best keys'], ['far_recall', 'recall of the best far keys'],
  ['kept', 'attention mass kept']];

function heatMap(entry) {
  const width = 64, height = 26, left = 70, top = 24;
  const nHeads = Math.max(...entry.layers.map(layer => layer.recall.length));
  const drawn = svg('svg', {class: 'chart heat', role: 'img', 'aria-label': `${state.metric} of ${entry.setting}`,
    viewBox: `0 0 ${left + nHeads * width} ${top + entry.layers.length * height}`,
    style: `max-width:${left + nHeads * width}px`});
  for (let h = 0; h < nHeads; ++h) {
    drawn.append(svg('text', {x: left + (h + .5) * width, y: 16, 'text-anchor': 'middle'}, `head ${h}`));
  }
  entry.layers.forEach((layer, i) => {
    drawn.append(svg('text', {x: left - 8, y: top + (i + .65) * height, 'text-anchor': 'end'}, `layer ${layer.layer}`));
    layer[state.metric].forEach((value, h) => {
      drawn.append(
        svg('rect', {x: left + h * width, y: top + i * height, width, height, 'fill-opacity': .75 * (value || 0)}),
        svg('text', {x: left + (h + .5) * width, y: top + (i + .65) * height, 'text-anchor': 'middle',
          'data-layer': layer.layer, 'data-head': h}, percent(value)));
    });
  });
  return drawn;
}

function drawRecall() {
  const section = byId('recall');
  section.replaceChildren(section.firstElementChild);
  section.classList.toggle('empty', data.heads.length === 0);
  if (data.heads.length === 0) {
    section.append(html('p', {class: 'note'}, 'No step was inspected.'));
    return;
  }
  section.append(
    html('div', {class: 'controls'},
      select('Setting', data.heads.map((entry, i) => [i, `${entry.setting}, ${lengthName(entry.n_ctx)}`]),
        state.heads, value => { state.heads = Number(value); drawRecall(); }),
      select('Figure', metrics, state.metric, value => { state.metric = value; drawRecall(); })),
    html('p', {class: 'note'}, 'Percent. The best keys: those of greatest exact attention, as many as were ' +
      'chosen. Far: neither among the first 4 tokens nor the last 32.'),
    heatMap(data.heads[state.heads]));
}

// --- plain text --------------------------------------------------------------------------------

function drawText() {
  const section = byId('text');
  section.classList.toggle('empty', data.text.length === 0);
  if (data.text.length === 0) {
    section.append(html('p', {class: 'note'}, 'No plain text was compared.'));
    return;
  }
  for (const [n_ctx, task] of unique(data.text.map(row => `${row.n_ctx}\n${row.task}`)).map(s => s.split('\n'))) {
    const rows = data.text.filter(row => String(row.n_ctx) === n_ctx && row.task === task);
    const compared = rows.filter(row => row.setting !== 'dense');
    const top = Math.max(1e-6, ...compared.flatMap(row => row.positions.map(p => p.kl)));
    section.append(html('h3', {}, `${task}, ${lengthName(Number(n_ctx))}`),
      chart({name: 'KL over position', log: false, xLabel: 'tokens after the document', writeX: count,
        writeY: value => value.toPrecision(2), top, series: compared.map(row => ({
          name: row.setting, hue: hue(row.setting.split(' ')[0]), points: row.positions.map(p =>
            ({x: p.position, y: p.kl, label: `${row.setting}, token ${p.position}: ${p.kl.toFixed(4)} nats`}))}))}),
      html('table', {}, html('thead', {}, html('tr', {}, ['setting', 'tokens', 'KL, nats', 'perplexity', 'same token, %']
        .map(title => html('th', {scope: 'col'}, title)))),
        html('tbody', {}, rows.map(row => html('tr', {'data-text': row.setting}, [row.setting, count(row.n),
          row.kl.toFixed(4), row.perplexity.toFixed(3), percent(row.same)].map(cell => html('td', {}, cell)))))));
  }
}

// --- samples -----------------------------------------------------------------------------------

const sample = () => data.samples[state.sample];
const settingsOf = s => Object.keys(s.settings);
const layersOf = s => unique(settingsOf(s).flatMap(id => s.settings[id].chosen.map(l => l.layer)))
  .sort((a, b) => a - b);

// The cells that a setting chose at the layer and head at hand (-1: at any head); null: all.
function chosenCells(s, id) {
  const layer = s.settings[id].chosen.find(entry => entry.layer === state.layer);
  if (!layer) return null;
  const cells = new Set();
  layer.heads.forEach((distances, head) => {
    if (state.head >= 0 && head !== state.head) return;
    let cell = 0;
    for (const distance of distances) cells.add(cell += distance);
  });
  return cells;
}

// Where the chosen keys are, from the first token to the last; the evidence below.
function band(s, id) {
  const n = s.pieces.length, bins = 400;
  const cells = chosenCells(s, id);
  const drawn = svg('svg', {viewBox: `0 0 ${bins} 14`, preserveAspectRatio: 'none', role: 'img',
    'data-chosen': cells ? [...cells].filter(cell => cell < n).length : n,
    'aria-label': cells ? `${cells.size} keys` : 'all keys'});
  const counts = new Array(bins).fill(0);
  if (cells) for (const cell of cells) if (cell < n) ++counts[Math.floor(cell * bins / n)];
  counts.forEach((found, i) => {
    const part = cells ? Math.min(1, found / 4) : 1;
    if (part > 0) drawn.append(svg('rect', {class: 'chosen', x: i, y: 11 - 11 * part, width: 1, height: 11 * part}));
  });
  for (const [begin, end] of s.evidence) {
    drawn.append(svg('rect', {class: 'where', x: begin * bins / n, y: 11, width: Math.max(1.5, (end - begin) * bins / n), height: 3}));
  }
  return drawn;
}

function bandRow(s, id) {
  const {score, answer} = s.settings[id];
  return [html('button', {type: 'button', 'aria-pressed': String(id === state.method), 'data-setting': id,
    class: score === 1 ? 'right' : 'wrong', title: `said: ${answer}`,
    onclick: () => { state.method = id; drawSample(); }}, id), band(s, id)];
}

function documentText(s) {
  const cells = chosenCells(s, state.method);
  const inEvidence = new Set();
  for (const [begin, end] of s.evidence) for (let i = begin; i < end; ++i) inEvidence.add(i);
  const box = html('div', {id: 'document', tabindex: 0, role: 'region', 'aria-label': 'The document'});
  let plain = '';
  s.pieces.forEach((piece, i) => {
    const chosen = cells && cells.has(i), evidence = inEvidence.has(i);
    if (!chosen && !evidence) {
      plain += piece;
      return;
    }
    box.append(plain, html('span', {class: (chosen ? 'chosen ' : '') + (evidence ? 'evidence' : ''),
      title: `token ${i}`}, piece));
    plain = '';
  });
  box.append(plain);
  return box;
}

function drawSample() {
  const section = byId('sample');
  section.classList.toggle('empty', data.samples.length === 0);
  section.replaceChildren(section.firstElementChild);
  if (data.samples.length === 0) {
    section.append(html('p', {class: 'note'}, 'No sample was kept.'));
    return;
  }
  const s = sample(), ids = settingsOf(s), layers = layersOf(s);
  if (!ids.includes(state.method)) state.method = ids.find(id => id.startsWith('hata ')) || ids[0];
  if (!layers.includes(state.layer)) state.layer = layers[layers.length - 1];
  const nHeads = Math.max(1, ...ids.flatMap(id => s.settings[id].chosen.map(entry => entry.heads.length)));
  const heads = [[-1, 'any'], ...Array.from({length: nHeads}, (_, h) => [h, h])];
  const redraw = change => value => { change(Number(value)); drawSample(); };
  section.append(
    html('div', {class: 'controls'},
      select('Sample', data.samples.map((one, i) => [i, `${one.task}, ${lengthName(one.n_ctx)}`]), state.sample,
        value => { location.hash = `sample-${value}`; }),
      select('Layer', layers.map(layer => [layer, layer]), state.layer, redraw(v => { state.layer = v; })),
      select('KV head', heads, state.head, redraw(v => { state.head = v; }))),
    html('h3', {}, `${s.task}: ${s.pieces.length.toLocaleString('en-US')} tokens`),
    html('p', {}, 'Asked: ', html('q', {id: 'query'}, s.query.trim()), ' Expected: ',
      html('q', {id: 'answers'}, s.answers.join(', '))),
    html('p', {}, `${state.method} said: `, html('q', {id: 'said'}, s.settings[state.method].answer.trim())),
    html('p', {class: 'note'}, `Keys chosen at layer ${state.layer} by the step that answers, from the first token to ` +
      'the last; the short marks below are where the document holds the answer. A tick: answered right.'),
    html('div', {class: 'bands'}, ids.flatMap(id => bandRow(s, id))),
    documentText(s));
}

function showEvidence() {
  const found = document.querySelector('#document .evidence');
  if (found) found.scrollIntoView({block: 'center'});
}

// --- pages and keys ----------------------------------------------------------------------------

const pages = [['summary', 'Results'], ['charts', 'Charts'], ['recall', 'Recall'], ['text', 'Text'],
  ['sample', 'Samples']];

function route() {
  const [page, number] = location.hash.slice(1).split('-');
  const shown = pages.some(([id]) => id === page) ? page : 'summary';
  if (shown === 'sample') {
    state.sample = Math.max(0, Math.min(data.samples.length - 1, Number(number) || 0));
    drawSample();
  }
  for (const [id] of pages) byId(id).hidden = id !== shown;
  for (const link of document.querySelectorAll('nav a')) {
    if (link.hash === '#' + shown) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
}

function step(values, now, by) {
  const at = values.indexOf(now) + by;
  return values[(at + values.length) % values.length];
}

const sampleKeys = {
  n: s => { location.hash = `sample-${step(data.samples.map((_, i) => i), state.sample, 1)}`; },
  p: s => { location.hash = `sample-${step(data.samples.map((_, i) => i), state.sample, -1)}`; },
  ']': s => { state.layer = step(layersOf(s), state.layer, 1); drawSample(); },
  '[': s => { state.layer = step(layersOf(s), state.layer, -1); drawSample(); },
  m: s => { state.method = step(settingsOf(s), state.method, 1); drawSample(); },
  e: showEvidence,
};

function onKey(event) {
  if (event.ctrlKey || event.altKey || event.metaKey || event.target.tagName === 'SELECT') return;
  if (pages[event.key - 1]) location.hash = pages[event.key - 1][0];
  else if (!byId('sample').hidden && data.samples.length > 0 && sampleKeys[event.key]) sampleKeys[event.key](sample());
}

function start() {
  const s = data.settings;
  document.title = `hata eval: ${s.model}`;
  byId('about').textContent = `${s.model}; ${s.tasks.join(', ')}; seed ${s.seed}` +
    (data.errors > 0 ? `; ${data.errors} documents could not be asked` : '');
  document.querySelector('nav').append(...pages.map(([id, title]) => html('a', {href: '#' + id}, title)));
  drawSummary();
  drawCharts();
  drawRecall();
  drawText();
  drawSample();
  addEventListener('hashchange', route);
  addEventListener('keydown', onKey);
  route();
}

start();
