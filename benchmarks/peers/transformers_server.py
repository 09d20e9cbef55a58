"""Transformers' `generate` behind a plain FastAPI, for benchmarks/serving.py: one request at a time, streamed."""

import argparse
import json
import threading

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--model")
    parser.add_argument("--port", type=int)
    options = parser.parse_args()
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, TextIteratorStreamer

    tokenizer = AutoTokenizer.from_pretrained(options.model)
    model = AutoModelForCausalLM.from_pretrained(options.model).eval()
    app, alone = FastAPI(), threading.Lock()

    def write(body):
        inputs = tokenizer(body["prompt"], return_tensors="pt")
        streamer = TextIteratorStreamer(tokenizer, skip_prompt=True)
        length = body["max_tokens"]
        settings = {"max_new_tokens": length, "min_new_tokens": length, "do_sample": True, "top_k": body["top_k"]}
        arguments = {**inputs, "streamer": streamer, "pad_token_id": 0, **settings}
        with alone, torch.inference_mode():
            threading.Thread(target=model.generate, kwargs=arguments).start()
            for text in streamer:
                if text:
                    yield f"data: {json.dumps({'choices': [{'text': text}]})}\n\n"

    @app.post("/v1/completions")
    async def completions(request: Request):
        return StreamingResponse(write(await request.json()), media_type="text/event-stream")

    uvicorn.run(app, port=options.port, log_level="warning")


if __name__ == "__main__":
    main()
