// Pages of events. For a project, a container or a port, the server leaves out gaps without a
// container. The page shows them everywhere, because anything may have been missed.

const narrowing = ['container', 'project', 'port', 'protocol', 'exposure', 'outside'];

// historyOf returns the function that loads a page: (params of /events, signal)
// -> {events, next}, with rising ids; next is absent at the end.
export function historyOf(api) {
  return async (params, signal) => {
    const get = (query) => api.get('events', query, { signal });
    const { before, limit, type } = params;
    const gapQuery = { type: 'gap', before, limit };
    if (type === 'gap') return get(gapQuery);
    if (type || params.transient || narrowing.every((name) => !params[name])) return get(params);
    const [page, gaps] = await Promise.all([get(params), get(gapQuery)]);
    return { ...page, events: merge(page, gaps.events) };
  };
}

// merge adds the gaps of the page's time. The caller selects by container.
function merge({ events, next }, gaps) {
  const from = next && events.length ? events[0].id : 0;
  const have = new Set(events.map((event) => event.id));
  return [...events, ...gaps.filter((gap) => gap.id >= from && !have.has(gap.id))].sort((a, b) => a.id - b.id);
}
