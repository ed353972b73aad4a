// A recording from the microphone, as a file to upload.

export const canRecord = () => Boolean(navigator.mediaDevices && window.MediaRecorder);

export class Recorder {
  // Calls `tell(seconds)` each second while it records.
  async start(maxSeconds, tell) {
    const stream = await navigator.mediaDevices.getUserMedia({ audio: true });
    const parts = [];
    this.recorder = new MediaRecorder(stream);
    this.recorder.addEventListener("dataavailable", (event) => parts.push(event.data));
    let seconds = 0;
    const timer = setInterval(() => {
      seconds += 1;
      tell(seconds);
      if (seconds >= maxSeconds) this.stop();
    }, 1000);
    const done = new Promise((resolve) => this.recorder.addEventListener("stop", resolve, { once: true }));
    this.recorder.start();
    tell(0);
    await done;
    clearInterval(timer);
    stream.getTracks().forEach((track) => track.stop());
    return new File(parts, "recording", { type: this.recorder.mimeType });
  }

  get active() {
    return Boolean(this.recorder && this.recorder.state === "recording");
  }

  stop() {
    if (this.active) this.recorder.stop();
  }
}
