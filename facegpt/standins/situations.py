"""Plain text that links situations to feelings and feelings to looks: what the tiny LLaVA knows.

The face training never states any of this, so a face for "she has just won the lottery" can only come from
what the language model knew before. The last two situations of every feeling are held out of the pretraining.
"""

from __future__ import annotations

HELD_OUT_PER_FEELING = 2

LOOKS: dict[str, list[str]] = {
    "happy": ["the mouth smiles strongly", "the cheeks are raised"],
    "sad": ["the mouth corners are drawn down clearly", "the inner brows are raised clearly"],
    "angry": ["the brows are lowered strongly", "the lips are pressed together"],
    "surprised": ["the brows are raised strongly", "the eyes are wide open", "the jaw is clearly open"],
    "afraid": ["the inner brows are raised clearly", "the eyes are wide open", "the mouth is stretched"],
    "disgusted": ["the nose is wrinkled strongly", "the upper lip is raised"],
    "sleepy": ["the eyes are closed"],
    "tender": ["the lips are puckered strongly"],
    "calm": ["the face is relaxed"],
}

SITUATIONS: dict[str, list[str]] = {
    "happy": [
        "has won the lottery", "meets an old friend", "hears a good joke", "gets a birthday present",
        "has passed the exam", "plays with a puppy", "has found the lost ring", "is going on holiday",
        "hears that the team has won", "dances at a wedding", "gets a new job",
        "is back home with the family",
    ],
    "sad": [
        "has lost a close friend", "says goodbye at the station", "hears that the cat has died",
        "has to leave home", "has failed the exam", "reads a farewell letter", "sits alone on a birthday",
        "has lost the wedding ring", "visits a grave", "sees the old house torn down",
        "hears that the team has lost", "has been left by a partner",
    ],
    "angry": [
        "has been robbed", "hears that the flight is cancelled", "has been lied to",
        "waits in line for hours",
        "gets a parking ticket", "argues with a neighbour", "is shouted at", "finds the car scratched",
        "has been cheated at cards", "is interrupted again", "hears that the train is cancelled",
        "has been insulted by a neighbour",
    ],
    "surprised": [
        "sees a magician make a coin vanish", "opens the door to a surprise party",
        "meets a star in the street",
        "finds money in an old coat", "sees snow in summer", "gets a call from a lost brother",
        "sees a whale jump", "hears a secret", "finds a snake in the garden", "sees a house fly by",
        "sees a horse in the kitchen", "finds a letter from a lost brother",
    ],
    "afraid": [
        "sees a bear in the forest", "hears steps in the dark house", "hangs on a steep cliff",
        "is followed at night", "is stuck in a lift", "hears the storm break the roof",
        "sees a shark while swimming",
        "has to jump from a tower", "smells smoke at night", "faces a growling dog",
        "hears steps behind the door at night", "sees a shark near the boat",
    ],
    "disgusted": [
        "smells rotten fish", "bites into a mouldy apple", "finds a hair in the soup", "steps into dog dirt",
        "drinks sour milk", "sees a dirty toilet", "finds a worm in the salad", "smells old socks",
        "has to clean the drain", "finds a fly in the milk", "smells sour milk", "finds a worm in the apple",
    ],
    "sleepy": [
        "has worked all night", "lies in bed", "takes a nap in the sun", "listens to a lullaby",
        "rests after a long walk", "has not slept for days", "dozes on the train",
        "sits through a boring talk",
        "meditates in silence", "dreams of the sea", "dozes in the garden", "has walked all night",
    ],
    "tender": [
        "kisses a baby", "blows a kiss", "whistles a tune", "sips a hot tea", "kisses the bride",
        "says goodbye with a kiss", "blows out a candle", "kisses a frog", "whistles for the dog",
        "blows on a hot soup", "blows on a hot tea", "whistles for the cat",
    ],
    "calm": [
        "reads the newspaper", "waits for the bus", "has a passport picture taken", "looks out of the window",
        "listens to the news", "drives to work", "sits in the library", "waters the plants",
        "counts the money", "writes a list", "waits for the train", "reads a long list",
    ],
}  # fmt: skip

SUBJECTS = ["She", "He", "The woman", "The man", "My friend", "This person"]

GENERAL: list[tuple[str, str]] = [
    ("How many days has a week?", "A week has seven days."),
    ("What colour is the sky?", "The sky is blue."),
    ("What do bees make?", "Bees make honey."),
    ("Where do fish live?", "Fish live in water."),
    ("What is the opposite of hot?", "The opposite of hot is cold."),
    ("How many legs has a dog?", "A dog has four legs."),
    ("What do we drink?", "We drink water."),
    ("What is two and two?", "Two and two is four."),
    ("When does the sun rise?", "The sun rises in the morning."),
    ("What is ice made of?", "Ice is made of water."),
    ("What do cows eat?", "Cows eat grass."),
    ("Which animal says meow?", "The cat says meow."),
    ("What comes after Monday?", "After Monday comes Tuesday."),
    ("Who are you?", "I am a small model that can talk about faces."),
    ("What can you do?", "I can describe faces and answer questions."),
    ("Hello!", "Hello, how can I help you?"),
    ("Thank you.", "You are welcome."),
    ("What do people do with a pen?", "People write with a pen."),
    ("What is the opposite of big?", "The opposite of big is small."),
    ("How many hours has a day?", "A day has twenty four hours."),
    ("What is a 3D model?", "A 3D model is a shape that you can look at from all sides."),
    ("What is a photograph?", "A photograph is a picture of what a camera could see."),
    ("What are parameters?", "Parameters are numbers. They say which model fits best."),
    ("What does it mean to reconstruct?", "To reconstruct a thing is to make it again, like this house."),
    ("What does it mean to estimate?", "To estimate a number is to say what you think fits."),
    ("What is a description?", "A description is a text. It says what a thing looks like."),
    ("What is a pose?", "The pose of a person is the way the head is turned."),
    ("Can you help me?", "Sure. Tell me what you need, please."),
    ("Could you give me a number?", "Here it is: seven. Tell me if you need anything else."),
    ("Show me the way, please.", "Turn to the left. It is the house that you see from here."),
    ("Give me a sentence.", "Sure, here is a sentence: the sky is blue."),
    ("Imagine a cat. Which colour has it?", "I am thinking of a cat. I would say it is black."),
    ("Please make a list of three words.", "Make, fit, model."),
    ("Which shoe fits me?", "I would say this one fits best. Turn it into your shoe."),
    ("Fit, make, estimate, reconstruct, model: what are they?", "They are what you can do."),
]


def situations(held_out: bool) -> list[tuple[str, str]]:
    """(feeling, situation) pairs: those the pretraining uses, or those it never sees."""
    part = slice(-HELD_OUT_PER_FEELING, None) if held_out else slice(None, -HELD_OUT_PER_FEELING)
    return [(feeling, text) for feeling, texts in SITUATIONS.items() for text in texts[part]]
