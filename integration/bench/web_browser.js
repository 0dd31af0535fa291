// Runs in the page before its own scripts: notes in bench.arrived when each
// event has arrived on the page's stream, and in bench.drawn when the frame that
// shows it was made. Times are milliseconds since 1970.
window.bench = { arrived: [], drawn: [], observing: false };
(() => {
  const now = () => performance.timeOrigin + performance.now();

  const plain = window.fetch;
  window.fetch = async (...request) => {
    const response = await plain(...request);
    if (!response.headers.get('Content-Type')?.startsWith('text/event-stream')) return response;
    const [page, ours] = response.body.tee();
    read(ours.pipeThrough(new TextDecoderStream()).getReader());
    return new Response(page, response);
  };

  async function read(reader) {
    let rest = '';
    for (;;) {
      // A connection that breaks is the page's to make again.
      const { value, done } = await reader.read().catch(() => ({ done: true }));
      if (done) return;
      const at = now();
      const lines = (rest + value).split('\n');
      rest = lines.pop();
      for (const line of lines) {
        if (!line.startsWith('data: {"id":')) continue;
        const { type, protocol, port } = JSON.parse(line.slice('data: '.length));
        bench.arrived.push({ type, protocol, port, at });
      }
    }
  }

  // A message that is sent while a frame is made is delivered after it.
  let waiting = [];
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    const at = now();
    for (const event of waiting) bench.drawn.push({ ...event, at });
    waiting = [];
  };
  const observer = new MutationObserver((records) => {
    for (const node of records.flatMap((record) => [...record.addedNodes])) {
      const subject = node.querySelector('.subject')?.textContent.match(/ (\d+)\/(\w+)$/);
      if (subject) waiting.push({ type: node.querySelector('.type').textContent, protocol: subject[2], port: Number(subject[1]) });
    }
    port2.postMessage(null);
  });
  addEventListener('DOMContentLoaded', () => {
    observer.observe(document.getElementById('events'), { childList: true });
    bench.observing = true;
  });
})();
