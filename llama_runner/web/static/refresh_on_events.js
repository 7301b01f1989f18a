// Reading what a view shows, again after events.

const PAUSE_MS = 300;

/** Call `read` now and after events of these types, one after the other with a pause; several at once are one reading. */
export function follow(context, types, read) {
  let again = false;
  let reading = false;
  async function refresh() {
    again = true;
    if (reading) return;
    reading = true;
    while (again && !context.signal.aborted) {
      again = false;
      await context.attempt(read);
      await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
    }
    reading = false;
  }
  context.listen(types, (event) => {
    if (event.type !== "job" || event.job.state !== "running") refresh();
  });
  refresh();
  return refresh;
}
