"""Short essays: a topic, what can be said about it, and a last sentence."""

__all__ = ["essay"]

import random

from recipe.lexicon import words
from recipe.scene import Scene

# Of each topic: what it is about, the people, what they do, what it changes, what it is made of, and the last word.
# What stands there twice is chosen twice as often.
_TOPICS: dict[str, dict[str, tuple[str, ...]]] = {
    "technology": {
        "about": words("technology, modern software, a good computer, the internet, a simple tool, automation, a "
                       "phone"),
        "people": words("users, users, engineers, workers, families, designers, programmers, companies"),
        "do": words("solve problems, work together, save time, build new things, share ideas, reach people, learn "
                    "faster"),
        "field": words("world, world, way people work, economy, industry, office, way we live"),
        "made": words("programs, machines, networks, devices, screens, cables, ideas"),
        "last": words("Tools change but the people who use them decide, The next invention may come from anyone"),
    },
    "artificial intelligence": {
        "about": words("artificial intelligence, machine learning, a language model, a neural network, Artificial "
                       "Intelligence, a clever program"),
        "people": words("researchers, doctors, teachers, users, users, scientists, writers, companies"),
        "do": words("find patterns, translate texts, understand language, answer questions, write programs, plan "
                    "ahead, explore ideas"),
        "field": words("world, world, way we work, future of medicine, field of science, way people learn, industry"),
        "made": words("examples, numbers, models, layers, words, questions"),
        "last": words("A model is only as good as its data, We should understand it before we trust it"),
    },
    "visualization": {
        "about": words("data visualization, a good chart, an interactive picture, visual analytics, a clear "
                       "diagram, a map of numbers"),
        "people": words("users, users, users, readers, analysts, experts, students, scientists, journalists"),
        "do": words("explore data, see patterns, understand complex systems, make better decisions, compare "
                    "numbers, find mistakes, tell stories, explore large collections"),
        "field": words("way we see data, field of science, world of numbers, way people think, newspaper"),
        "made": words("colours, lines, points, axes, numbers, shapes, labels"),
        "last": words("One picture can say what a page of numbers hides, The best chart is the one that is understood"),
    },
    "science": {
        "about": words("science, a careful experiment, a new theory, basic research, a good question, the "
                       "scientific method"),
        "people": words("scientists, students, researchers, children, experts, people"),
        "do": words("understand nature, test ideas, ask better questions, learn from mistakes, measure small "
                    "things, explain the world"),
        "field": words("world, way we think, understanding of nature, field of biology, history of ideas"),
        "made": words("questions, measurements, experiments, ideas, results, mistakes"),
        "last": words("Every answer opens a new question, A mistake that is understood is worth a lot"),
    },
    "conferences": {
        "about": words("a conference, the annual meeting, the workshop, the VIS conference, the IEEE VIS "
                       "conference, the keynote, a poster session, the spring conference"),
        "people": words("researchers, speakers, visitors, students, experts, authors, guests"),
        "do": words("present their work, exchange ideas, meet colleagues, discuss new results, find partners, "
                    "learn from others"),
        "field": words("field, research community, way people work together, discussion, university"),
        "made": words("talks, posters, papers, questions, coffee breaks, demonstrations, workshops"),
        "last": words("The best talks are often the ones in the hall, Next year it will be in another city"),
    },
    "museums": {
        "about": words("the museum, an exhibition, an old painting, the new gallery, a collection of coins, the "
                       "guided tour"),
        "people": words("visitors, children, artists, tourists, guides, collectors"),
        "do": words("see the past, discover art, learn about history, slow down, look more closely, understand "
                    "other times"),
        "field": words("city, quarter, way we see the past, old town, neighbourhood"),
        "made": words("paintings, statues, rooms, stories, maps, old letters"),
        "last": words("What is old can still surprise us, On Mondays it is closed"),
    },
    "cities": {
        "about": words("the city, a green park, public transport, the old town, a new bridge, a busy street, a "
                       "bicycle"),
        "people": words("people, neighbours, visitors, planners, children, workers, families"),
        "do": words("meet each other, get to work, breathe clean air, live close together, save energy, walk safely"),
        "field": words("city, way we travel, neighbourhood, street, way people live, region"),
        "made": words("streets, houses, bridges, parks, trains, shops, voices"),
        "last": words("A city is never finished, The best streets belong to the people who walk"),
    },
    "nature": {
        "about": words("the forest, a healthy river, an old tree, the ocean, a small garden, wild land, the rain"),
        "people": words("animals, farmers, people, birds, children, scientists, visitors"),
        "do": words("find food, breathe, rest, survive the winter, understand the seasons, grow"),
        "field": words("land, climate, landscape, valley, way we think about life"),
        "made": words("leaves, stones, insects, roots, plants, waves, sounds"),
        "last": words("What we protect today will still be there tomorrow, Nature takes its time"),
    },
    "weather": {
        "about": words("the weather, a good forecast, a weather station, a satellite, the climate, a storm warning"),
        "people": words("farmers, pilots, sailors, travellers, scientists, families"),
        "do": words("plan the day, stay safe, protect the harvest, prepare for storms, understand the clouds"),
        "field": words("coast, climate, harvest, way we plan, landscape"),
        "made": words("clouds, winds, measurements, drops of water, maps, numbers"),
        "last": words("Tomorrow it may all be different, It is still wise to take an umbrella"),
    },
    "food": {
        "about": words("a simple meal, fresh bread, the local market, good cooking, a vegetable garden, a family "
                       "recipe, slow food"),
        "people": words("families, cooks, guests, farmers, children, friends"),
        "do": words("eat well, come together, enjoy the evening, save money, remember home, try new things"),
        "field": words("kitchen, way we eat, restaurant, village, table"),
        "made": words("flour, herbs, vegetables, spices, fruits, small secrets"),
        "last": words("Everything tastes better in company, A good meal needs time and little else"),
    },
    "music": {
        "about": words("music, an old song, the orchestra, a concert, a street musician, the choir, a quiet melody"),
        "people": words("listeners, musicians, children, dancers, singers, neighbours, friends"),
        "do": words("forget their worries, feel at home, dance, remember the past, listen to each other, express "
                    "feelings"),
        "field": words("evening, mood of a room, school, city, way we listen"),
        "made": words("notes, rhythms, voices, pauses, instruments, memories"),
        "last": words("When the music stops the silence is different, A song needs only one voice to begin"),
    },
    "sports": {
        "about": words("sport, the team, regular training, a fair game, football, swimming, the long race"),
        "people": words("players, beginners, athletes, children, runners, friends, fans"),
        "do": words("stay healthy, trust each other, win and lose, become stronger, find friends, learn patience"),
        "field": words("school, club, way people feel, season, game"),
        "made": words("rules, hours of practice, defeats, games, small steps, muscles"),
        "last": words("The next game starts at zero again, In the end it is only a game"),
    },
    "books": {
        "about": words("reading, a good book, the public library, an open encyclopedia, a short poem, a long novel"),
        "people": words("readers, children, students, writers, teachers, users"),
        "do": words("see other worlds, understand others, think for themselves, learn new words, explore the past, "
                    "dream"),
        "field": words("mind, classroom, way we think, world of ideas, evening"),
        "made": words("words, pages, characters, pictures, chapters, questions"),
        "last": words("The next chapter is always waiting, A book can wait longer than any friend"),
    },
    "health": {
        "about": words("good sleep, a daily walk, modern medicine, clean water, the hospital, a healthy breakfast"),
        "people": words("patients, doctors, nurses, people, children, workers"),
        "do": words("feel better, live longer, recover, think clearly, stay strong, help others"),
        "field": words("body, hospital, way we live, day, health of a country"),
        "made": words("habits, medicines, hours of rest, friendly words, small choices"),
        "last": words("Small habits make the difference, Nobody can be healthy for somebody else"),
    },
    "space": {
        "about": words("space research, a telescope, the space station, a mission to the moon, a satellite, astronomy"),
        "people": words("astronauts, astronomers, engineers, students, nations, dreamers"),
        "do": words("study the stars, look back in time, understand the Earth, explore other planets, work together"),
        "field": words("way we see the Earth, field of physics, imagination, future of travel"),
        "made": words("rockets, mirrors, signals, years of planning, lenses, calculations"),
        "last": words("Above us there is still more to see than below, The light of some stars is older than we are"),
    },
    "education": {
        "about": words("education, a good teacher, the small school, an online course, homework, a curious question"),
        "people": words("students, children, teachers, parents, users, adults"),
        "do": words("understand the world, learn from each other, think critically, find their own way, try again, "
                    "grow"),
        "field": words("classroom, country, future, way people learn, life of a child"),
        "made": words("lessons, questions, exercises, books, patience, examples"),
        "last": words("Nobody is ever too old to learn, A good question stays with us for years"),
    },
}  # fmt: skip
_SHARED = {
    "quality": words("importance, beauty, value, power, limits, work, role, future, history, problems"),
    "place": words("Europe, Asia, small towns, large cities, many countries, every school, the north, the south"),
    "measure": words("growing, changing, improving, spreading"),
    "virtue": words("useful, important, powerful, simple, popular, interesting, valuable, difficult, helpful"),
}

_FIRST = (
    "{about} empowers {people} to {do}.",
    "{about} <allows|enables|helps|invites|encourages|teaches> {people} to {do}.",
    "{about} is <transforming|changing|shaping> the {field}.",
    "{about} has changed the {field} <in {place}|more than anything else|in only a few years|for ever>.",
    "<Today|More than ever|In {place}>, {about} is {virtue} for {people}.",
    "Why is {about} so {virtue}?",
    "Few things are as {virtue} as {about}.",
    "<Many|Most|Some> {people} think that {about} is {virtue}.",
    "This text is about {about} and the {people} who need it.",
    "{about} <plays an important role|is part of everyday life> in {place}.",
)
_NEXT = (
    "{about2} <highlights|shows|demonstrates|underlines> the {quality} of {made}.",
    "{about2} is <transforming|changing|slowly changing|quietly changing> the {field2}.",
    "{about2} empowers {people2} to {do2}.",
    "It <helps|allows|enables> {people2} to {do2}.",
    "With {about2}, {people2} can {do2} and {do3}.",
    "{people2} use {made} to {do2}.",
    "Without {made}, {people2} could not {do3}.",
    "It needs {made}, {made2} and a lot of patience.",
    "However, {about2} can also be <expensive|slow|confusing|hard to understand|dangerous>.",
    "<For example|For instance>, {people2} in {place2} <use it|rely on it> to {do3}.",
    "{people3} <often|rarely|always> ask how {about2} works.",
    "The {quality} of {made} should not be forgotten.",
    "In {place2} the number of {people3} is {measure} every year.",
    "A recent <study|report|survey> highlights the {quality} of {about3}.",
    "It is not easy to {do3}, but {about2} makes it easier.",
    "{people3} who {do2} are often <happier|more successful|more careful> than others.",
    "<At the same time|Of course>, there are <risks|costs|open questions|limits>.",
    "<Some|Many> {people3} fear that {about2} will replace {made2}.",
    "The <first|most important|hardest> step is to {do2}.",
    "{made} and {made2} belong together, as {people3} know.",
    "<Together|Step by step>, {people2} and {people3} have <learned|managed|begun> to {do3}.",
    "<First|In the past>, {people2} had only {made}. <Then|Now> they have {made2} too.",
)
_LAST = (
    "{last}.", "{last}.", "In short, {about} is {virtue}, and it is here to stay.",
    "So {people} will continue to {do}, <one way or another|year after year>.",
    "In the end, the {field} depends on {people}.", "<Perhaps|One day> {about2} will help all of us to {do}.",
    "That is why {about} matters.", "The future of {about} has only begun.",
)  # fmt: skip


def essay(dice: random.Random) -> str:
    """Writes three to seven sentences about one topic."""
    scene = Scene(dice, {**_SHARED, **_TOPICS[dice.choice(sorted(_TOPICS))]})
    middle = [scene.say(template) for template in dice.sample(_NEXT, dice.randint(1, 5))]
    return " ".join([scene.choose(_FIRST), *middle, scene.choose(_LAST)])
