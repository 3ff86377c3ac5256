"""Everyday texts: letters, dialogues, recipes, instructions, questions and answers, notices, descriptions."""

__all__ = ["everyday"]

import random

from recipe.scene import Scene

# Each form is a tuple of steps, and each step a tuple of wordings; steps are joined as the form says.
_FORMS: tuple[tuple[str, tuple[tuple[str, ...], ...]], ...] = (
    ("\n\n", (  # a letter
        ("Dear {A},",),
        ("<thank you for your letter|I hope that you are well|I think of you every day|I have not heard from you "
         "for a long time>. "
         "<here it is|the weather is> {weather} <now|today|here>, and <I am|we are all> {feeling}.",
         "<I am writing from|greetings from> the {place} in {month}. <everything is|the days are> "
         "<quiet|new|beautiful> here.",),
        ("<Last {day}|Yesterday|Two days ago> I <met {B} at the {place2}|saw your {relative} at the {place2}|"
         "bought {a gift} for the {room}>, and <we talked about you|I thought of you at once|it rained the whole "
         "time>.",
         "My {relative} has {a look} {animal} now, and it sleeps in the {room}.",
         "I have started to learn the {instrument}. The neighbours are not {feeling2} about it.",),
        ("<Please write soon|Please come and visit us in {season}|Tell me what you are doing>.",
         "Could you send back my {gift2}? I need it on {day2}.",
         "When will you come? We will cook {food}.",),
        ("<Yours|With love|Best wishes|See you soon>,\n{C}",),
    )),
    ("\n", (  # a dialogue
        ("{A}: <Good morning|Hello|Good evening>, {B}. <How are you|Where have you been|What are you doing here>?",
         "{A}: Do you know where my {gift} is?",
         "{A}: Shall we go to the {place} on {day}?",),
        ("{B}: <I am {feeling}|A little {feeling}, thank you>. And you?",
         "{B}: I have just come from the {place2}. It was full of people.",
         "{B}: I am not sure. Let me think.",),
        ("{A}: <I need|I am looking for> {a gift2} for my {relative}.",
         "{A}: I heard that {C} has bought {a look} {thing}.",
         "{A}: It is {weather} today. We should take {drink} with us.",),
        ("{B}: <Really|Again>? What for?",
         "{B}: You should ask {C}. {he C} knows more about it than I do.",
         "{B}: That is a good idea.",),
        ("{A}: I will tell you on the way.",
         "{A}: All right. I will call you at {hour}.",
         "{A}: Then it is decided.",),
        ("{B}: <See you later|Until tomorrow|Fine>!", "{B}: Wait, you have forgotten your {gift3}!",),
    )),
    ("\n", (  # a recipe
        ("How to make <{vegetable} soup|a {fruit} cake|{fruit} jam|a {vegetable} salad|{vegetable} bread>",),
        ("You need {number} {many vegetable}, {number2} {many fruit}, salt and a little {drink}.",
         "You need {number} cups of flour, some {drink} and {a fruit}.",),
        ("1. Wash the {many vegetable} and cut them into small pieces.",
         "1. Put the flour into a large bowl and add the {drink}.",
         "1. Take a big pot and fill it with water.",),
        ("2. <Heat|Warm|Cook|Mix> everything for {number3} minutes.",
         "2. Let it rest for {number3} hours in the {room}.",),
        ("3. Add salt and <pepper|honey|herbs|sugar>, and <stir|taste|wait>.",
         "3. Put it into the oven until it is {colour}.",),
        ("4. Serve it <hot|warm|cold> with {food}.", "4. It is best on the next day.",),
    )),
    (" ", (  # instructions
        ("<This is how you|Here is how to> <clean|paint|repair|carry|build> {a thing}.",
         "It is not hard to <clean|paint|repair|open> {a look} {thing}.",),
        ("First <take|find|bring> {a box} and some {material}.",
         "First make sure that the {thing} is dry.",
         "Before you begin, open the window of the {room}.",),
        ("Then <turn the {thing} around|remove the old {material2}|wash it with warm water>.",
         "Next, <press|pull|push> gently until you hear a {sound}.",),
        ("<Wait for|Leave it alone for> {number} minutes.",
         "Ask {a person} to hold the other end.",
         "Do not use too much {material3}.",),
        ("Finally, put everything back and <close the {box}|wash your hands|enjoy the result>.",
         "If it does not work, try again on another day.",
         "Now your {thing} should look like new.",),
    )),
    ("\n", (  # questions and answers
        ("Q: <What is|Who has|Where can I buy> {a thing}?",
         "Q: <When does|How often does> the {place} open?",
         "Q: Why is the {animal} so {feeling}?",),
        ("A: <It depends|That is a good question|Nobody knows exactly>. <Most people|Some people> ask the {person}.",
         "A: On {day} at {hour} o'clock, but not in {month}.",
         "A: Because it has not eaten since {day2}.",),
        ("Q: And <how much does it cost|what should I bring|is it far from here>?",
         "Q: Can I come with my {relative}?",),
        ("A: {number} coins, or {number2} if it is {weather}.",
         "A: Yes, but please bring {a gift}.",
         "A: It is {number} minutes from the {place2}.",),
    )),
    (" ", (  # a diary
        ("{day}, {number} o'clock. <Today was|It has been> a {weather} day.",
         "{month}, at the {place}. I am {feeling}.",),
        ("I got up early and had {food} with {drink}.",
         "In the morning I went to the {place2} with {A}.",
         "{B} came to see me and stayed until {hour}.",),
        ("We played {game}, and I lost.",
         "I saw {a look} {thing} that I would like to have.",
         "My {relative} called, and we talked for an hour.",
         "Nothing happened until the evening, when I heard a {sound} in the {room}.",),
        ("I wonder what {C} is doing now.",
         "I must not forget to buy {many fruit}.",
         "The new {person} is kind, I think.",),
        ("Now I am tired. Good night.", "Tomorrow I will try again.", "That is all for today.",),
    )),
    (" ", (  # a description
        ("The {place} stands <at the end of a long street|on a small hill|beside the water|in the middle of the town>.",
         "My {relative} lives in {a colour} house near the {place}.",
         "In the {room} there are <two|three|many> {many thing}.",),
        ("Its walls are made of {material}, and its door is {colour2}.",
         "From the window one can see the {place2} and, on clear days, the mountains.",
         "On the left there is {a look} {thing2}, and on the right {a thing3}.",),
        ("In {season} it smells of {many fruit}.",
         "{a animal} <lives|sleeps> under the roof.",
         "It is always a little {weather} there.",
         "Every {day} {a person} comes and cleans it.",),
        ("Not many people know it.", "I have been there only once, but I remember everything.",
         "It has not changed for {number} years.",),
    )),
    (" ", (  # the news of a small town
        ("<Good|Bad|Strange|Big> news from the {place}: <it will be closed|it will open again|it has a new roof|it "
         "is for sale>.",
         "<Lost|Found> near the {place}: {a colour} {gift}.",
         "Attention, please! The {place} needs {a job}.",),
        ("The {person} said on {day} that <nobody was hurt|everybody was surprised|it was only the beginning>.",
         "It happened at {hour} o'clock, when most people were asleep.",
         "Whoever knows more about it should ask for {A} at the {place2}.",),
        ("{B}, {a job2} of {number} times ten years, had never seen anything like it.",
         "According to {B}, it has to do with the {weather} {season}.",),
        ("More about this tomorrow.", "The meeting is on {day2} in the {place3}.", "Thank you for your help.",),
    )),
    (" ", (  # the weather
        ("<Today|Tomorrow|On {day}> it will be {weather} in the <north|south|east|west> and {weather2} elsewhere.",),
        ("<In the morning|At noon|Toward evening> there may be some <rain|fog|snow|sun|wind> near the {place}.",
         "Temperatures will <rise|fall> to {number} degrees.",),
        ("Sailors should stay in the harbour.", "The night will be <clear|quiet|cold>.",
         "Take a coat with you, or better an umbrella.",),
        ("The weekend looks better.", "{season} is coming at last.", "From {day2} on it will be {weather3} again.",),
    )),
    (" ", (  # an animal
        ("{a animal} is <smaller|larger|faster|slower|louder> than {a animal2}.",
         "The {animal} of my {relative} is called {A}.",),
        ("It eats {many fruit} and <sleeps most of the day|runs through the whole {place}>.",
         "It lives near the {place} and likes {weather} days.",),
        ("When it is {feeling}, it makes a {sound}.",
         "It is afraid of {a thing} and of nothing else.",),
        ("I would like to have one, too.", "Children love it.", "In {season} it is hardly ever seen.",),
    )),
)  # fmt: skip


def everyday(dice: random.Random) -> str:
    """Writes a letter, a dialogue, a recipe or the like."""
    scene = Scene(dice)
    joint, steps = dice.choice(_FORMS)
    return joint.join([scene.choose(step) for step in steps])
