// A program of somebody else, which has only the package: checked by `tsc --strict`, and run by package.test.mjs.
import { ClientError, follow, frames, openFeed, type Chunk, type FollowOptions, type Gap, type Status, type Summary } from "h3cast";
import { FrameDecoder } from "h3cast/frames";

const gaps: Gap[] = [];
const texts = new Map<number, string>();
const options: FollowOptions = {
  from: "start",
  transport: "auto",
  token: async (why: string) => (why === "" ? "" : "token"),
  onChunk: ({ seq, bytes }: Chunk) => texts.set(seq, new TextDecoder().decode(bytes)),
  onGap: (gap) => gaps.push(gap),
  onState: (status) => console.log(words(status)),
};

function words(status: Status): string {
  switch (status.state) {
    case "connecting": return `attempt ${status.attempt.toFixed()}`;
    case "streaming": return `${status.transport} ${status.protocol} ${status.verdicts.map(({ reason }) => reason).join(" ")}`;
    case "reconnecting": return `${status.error.message} ${status.error.steps.join(" ")} ${status.waitMs.toFixed()}`;
    case "failed": return status.error.message;
    case "stalled": return "stalled";
    case "ended":
    case "stopped": return status.summary.outcome;
  }
}

export async function main(url: URL): Promise<Summary | string> {
  const following = follow(url, options);
  const cursor: string | undefined = following.cursor;
  console.log(cursor);
  await following.send("a line\n");
  await following.send(new Uint8Array([10]));
  await following.send(null);
  try {
    return await following.done;
  } catch (error) {
    following.stop();
    following.retryNow();
    return error instanceof ClientError ? error.message : String(error);
  }
}

export async function first(url: string): Promise<frames.Frame | undefined> {
  const feed = await openFeed(url, { transport: "fetch", signal: AbortSignal.timeout(1000) });
  const decoder: frames.FrameDecoder = new FrameDecoder();
  for await (const bytes of feed.stream) {
    decoder.push(bytes);
    return decoder.pop();
  }
  return undefined;
}

// @ts-expect-error there is no such transport
follow("https://localhost:4433/stream", { transport: "pigeon" });
// @ts-expect-error a feed has an address
follow();
