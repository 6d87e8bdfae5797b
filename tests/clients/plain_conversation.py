"""A conversation of three questions with the plain client; any of the frameworks' environments runs it.

Run as a program of its own: BASE_URL API_KEY QUESTION; prints the last reply.
"""

import sys

from openai import OpenAI


def main(base_url: str, api_key: str, question: str) -> None:
    client = OpenAI(base_url=base_url, api_key=api_key)
    messages = [{"role": "user", "content": question}]
    for _ in range(3):
        reply = client.chat.completions.create(model="solver", messages=messages).choices[0].message
        messages += [{"role": "assistant", "content": reply.content}, {"role": "user", "content": "Are you sure?"}]
    print(reply.content)


if __name__ == "__main__":
    main(*sys.argv[1:4])
