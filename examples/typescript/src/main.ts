/** Plays the journey twice, and prints what the model saw each time. */

import { withBroker } from "./broker.js";
import { handles } from "./handles.js";
import { Services } from "./services.js";
import { NAVAN, RAMP } from "./trip.js";
import { tutorial } from "./tutorial.js";
import { behind } from "./vault.js";

/** How many of the seven values stand in a text. */
export function valuesIn(text: string): number {
  return Object.values({ ...NAVAN, ...RAMP }).filter((reference) => text.includes(behind(reference))).length;
}

/** Both transcripts, and what the services did each time. */
export async function journeys() {
  const play = async (journey: (services: Services) => Promise<string>) => {
    await using services = await Services.start();
    return { transcript: await journey(services), done: services.done };
  };
  return {
    tutorial: await play(tutorial),
    handles: await withBroker((brokers) => play((services) => handles(services, brokers))),
  };
}

if (process.argv[1] === import.meta.filename) {
  const { tutorial, handles } = await journeys();
  for (const [title, { transcript, done }] of [
    ["the tutorial's way", tutorial],
    ["with valetkey", handles],
  ] as const) {
    console.log(`== ${title}: all that the model saw and said\n${transcript}\n`);
    console.log(`-- ${done.join("; ")}; values in the transcript: ${valuesIn(transcript)} of 7\n`);
  }
}
