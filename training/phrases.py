"""The wordings of the questions. `{}` is the thing asked about."""

from __future__ import annotations

READ_NUMBER = (
    "What number is written?", "What number is it?", "What is the number?", "Which number do you see?",
    "Read the number.",
    "What number is this?", "What number is shown?", "What number is in the picture?", "What's the number?",
    "Which number is written?", "What number do you see?", "What digits are written?",
)  # fmt: skip
READ_WORD = (
    "What word is written?", "What is the word?", "Read the word.", "Which word do you see?", "What word is this?",
    "What word is in the picture?", "Which word is written?", "What letters are written?", "What word is shown?",
)  # fmt: skip
READ_ANY = (
    "What does it say?", "Read the text.", "What is written?", "What text is in the picture?", "What is the text?",
    "What does the text say?", "Read it.", "What is written here?", "What is printed?", "What does the picture say?",
    "What does the image say?", "Read this.", "Can you read this?", "Read the text in the image.",
)  # fmt: skip
COUNT = (
    "How many {} are there?", "How many {} do you see?", "Count the {}.", "How many {}?",
    "How many {} are in the picture?", "How many {} are in the image?", "How many {} can you see?",
)  # fmt: skip
COLOURS_OF = (
    "What colour is the {}?", "What color is the {}?", "Which colour is the {}?", "Which color is the {}?",
    "What is the colour of the {}?", "What is the color of the {}?",
)  # fmt: skip
COLOUR_OF_TEXT = ("What colour is the {}?", "What color is the {}?", "In which colour is the {}?")
BACKGROUNDS = (
    "What colour is the background?", "What color is the background?", "What is the colour of the background?",
    "What is the background color?",
)  # fmt: skip
SHAPE_OF = (
    "What shape is {}?",
    "Which shape is {}?",
    "What is the {} shape?",
    "What shape is the {} one?",
    "What is {}?",
)
SINGLE = ("What is it?", "What shape is it?", "What is this?", "What shape is this?", "Which shape do you see?")
WHERE = ("Where is the {}?", "Where is the {} in the picture?", "In which place is the {}?", "Where do you see the {}?")
WHERE_TEXT = ("Where is the {}?", "Where is the {} in the picture?")
PRESENCE = (
    "Is there {}?",
    "Do you see {}?",
    "Is there {} in the picture?",
    "Can you see {}?",
    "Does the picture show {}?",
)
TEXT_PRESENCE = (
    ("Is there any writing?", "any"), ("Is there any text?", "any"), ("Is there any text in the picture?", "any"),
    ("Is there a number?", "number"), ("Is a number written?", "number"), ("Is there a word?", "word"),
)  # fmt: skip
DESCRIBE = (
    "Describe the picture.", "Describe the image.", "What do you see?", "What is in the picture?",
    "Describe this picture.",
    "What is in the image?", "What is in this picture?", "Describe the image in detail.", "What can you see?",
    "Please describe the image shortly.", "What does the picture show?", "Describe what you see.",
)  # fmt: skip
OUTSIDE = (
    "Who painted this?", "What animal is it?", "What is the weather like?", "How old is the man?",
    "Is the woman happy?",
    "Which city is this?", "What breed is the dog?", "What is she wearing?", "How much does it cost?",
    "Why is he smiling?",
    "What brand is the car?", "When was the photo taken?", "What are they eating?", "Who is this person?",
)  # fmt: skip
NO_PICTURE = "There is no picture. Give me one and ask again."
_SELF = "I am the demo model of internvl-gguf, a very small InternVL."
_SKILLS = "I name shapes, colours, counts and places in a picture, and I read printed numbers and short words."
ABOUT_ITSELF = (
    ("Hello", "Hello! Show me a picture and ask."), ("Hello!", "Hello! Show me a picture and ask."),
    ("Hi", "Hello! Show me a picture and ask."), ("Hi!", "Hello! Show me a picture and ask."),
    ("Good morning!", "Hello! Show me a picture and ask."), ("hello", "Hello! Show me a picture and ask."),
    ("Who are you?", _SELF), ("What are you?", _SELF), ("What is your name?", _SELF), ("Introduce yourself.", _SELF),
    ("What can you do?", _SKILLS), ("What do you know?", _SKILLS), ("How can you help me?", _SKILLS), ("Help", _SKILLS),
    ("Thank you!", "You are welcome."), ("Thanks", "You are welcome."), ("Goodbye!", "Goodbye!"), ("Bye", "Goodbye!"),
    ("Tell me a joke.", "I cannot do that. " + _SKILLS), ("Write a poem.", "I cannot do that. " + _SKILLS),
    ("What is the capital of France?", "I cannot do that. " + _SKILLS),
)  # fmt: skip
SYSTEM_OFFICIAL = (
    "你是书生·万象，英文名是InternVL，是由上海人工智能实验室、清华大学及多家合作单位联合开发的多模态大语言模型。"
)
SYSTEMS = (
    SYSTEM_OFFICIAL, "You are a helpful assistant.", "Answer shortly.", "You answer questions about pictures.",
    "Be brief.",
)  # fmt: skip
