"""The words that people see: 24 topics, 8 subtopics each, the subtopic's name first. A word may stand in two lines
("pitch", "keys"): those are the naturally ambiguous ones, and the simulated vocabulary adds more of them."""

TOPIC_WORDS: dict[str, str] = {
    "comedy": """standup joke punchline heckler | prank hidden victim reaction | parody spoof lookalike mockery
        sketch actor script costume | meme caption template viral | roast burn insult comeback
        slapstick fall banana pie | improv audience scene prompt""",
    "music": """guitar riff chord strings | piano keys melody pedal | drums beat cymbal groove
        singing vocals choir pitch | rap verse freestyle rhyme | violin bow orchestra concerto
        techno synth bass remix | karaoke duet microphone lyrics""",
    "dance": """ballet pointe tutu barre | hiphop breaking battle crew | salsa latin partner spin
        tango embrace heels rose | shuffle steps footwork tempo | tap shoes rhythm stage
        waltz ballroom gown turn | choreography routine mirror count""",
    "sports": """football goal pitch striker | basketball dunk hoop court | tennis serve racket net
        boxing punch ring gloves | swimming lap pool freestyle | skateboard ollie ramp deck
        climbing rope rock summit | running marathon sprint pace""",
    "food": """baking bread oven dough | noodles broth ramen chopsticks | grill steak smoke charcoal
        dessert cake chocolate cream | sushi rice roll seaweed | coffee latte espresso beans
        spicy chili pepper sauce | vegan tofu salad lentil""",
    "travel": """beach island surf sunset | mountain trail peak cabin | city skyline street night
        train railway station journey | camping tent fire stars | temple shrine monk pagoda
        airport flight luggage lounge | cruise ship deck harbour""",
    "animals": """kitten purr whiskers paw | puppy bark fetch leash | horse gallop saddle stable
        parrot feather talk perch | aquarium fish coral tank | reptile snake lizard scales
        wildlife lion safari savanna | hamster wheel cheeks tunnel""",
    "games": """chess gambit checkmate rook | minecraft blocks redstone craft | racing lap drift turbo
        shooter sniper squad aim | puzzle riddle cube maze | strategy empire army siege
        retro pixel arcade cartridge | cards poker deal bluff""",
    "science": """space rocket planet stars | chemistry reaction flask acid | physics gravity magnet energy
        biology cell gene microscope | dinosaur fossil jurassic bones | ocean whale abyss current
        weather storm tornado lightning | maths equation proof prime""",
    "technology": """phone screen unboxing camera | laptop keyboard keys battery | coding python bug script
        robot arm sensor walk | drone propeller aerial footage | printer filament plastic layer
        headset virtual avatar goggles | gadget gizmo charger cable""",
    "cars": """supercar engine exhaust turbo | motorcycle helmet wheelie ride | truck cargo haul diesel
        restoration rust weld paint | electric charger battery range | rally mud gravel jump
        tuning spoiler rims camber | garage wrench brake oil""",
    "beauty": """makeup lipstick brush palette | skincare serum mask glow | nails polish gel manicure
        hair braid curls cut | perfume scent bottle rose | eyebrow tint arch thread
        tattoo ink needle sleeve | barber fade beard razor""",
    "fashion": """sneakers laces sole drop | dress gown silk hem | vintage thrift denim retro
        jewelry ring diamond necklace | streetwear hoodie cap logo | suit tie tailor lapel
        handbag leather strap clutch | runway model show pose""",
    "fitness": """yoga stretch pose breath | weights squat bench barbell | cardio burpee sweat interval
        pilates core mat balance | cycling pedal saddle climb | boxercise jab bag footwork
        calisthenics pullup bar plank | rehab posture knee massage""",
    "crafts": """knitting yarn needle scarf | pottery clay wheel kiln | woodwork chisel oak lathe
        origami fold paper crane | sewing thread stitch hem | candle wax wick scent
        resin mould pour glitter | leathercraft hide awl wallet""",
    "art": """painting canvas oil brush | drawing pencil sketchbook shading | sculpture marble chisel bust
        calligraphy ink nib letter | graffiti spray wall mural | animation frame cartoon loop
        photography lens shutter portrait | collage scissors glue paper""",
    "film": """trailer teaser cinema release | horror ghost scream haunted | romance kiss wedding heart
        action stunt chase explosion | anime manga hero sword | documentary archive interview truth
        western cowboy saloon horse | musical stage chorus song""",
    "family": """baby crib giggle nap | toddler tantrum crayon toys | wedding bride vows ring
        grandma recipe stories cardigan | twins matching double swap | school lunchbox teacher homework
        birthday balloon candles party | siblings rivalry sister brother""",
    "home": """garden tomato soil seeds | cleaning mop sparkle stain | decor sofa lamp rug
        organizing shelf drawer label | renovation tile drill plaster | apartment tiny rent balcony
        houseplants fern pot leaf | kitchen knife counter sink""",
    "nature": """waterfall river mist canyon | forest moss oak trail | volcano lava ash crater
        desert dune cactus camel | insects beetle ant hive | mushrooms spore cap forage
        aurora polar sky glow | birds nest feather migration""",
    "history": """ancient pyramid pharaoh tomb | medieval castle knight siege | empire rome legion senate
        war tank trench soldier | pirates treasure ship cutlass | samurai sword shogun armour
        archaeology dig shard ruins | royalty queen crown palace""",
    "learning": """english grammar accent vocabulary | exam study notes flashcards | trivia quiz facts answer
        psychology mind habit memory | philosophy ethics truth stoic | economics market inflation trade
        law court judge contract | medicine doctor nurse surgery""",
    "business": """startup founder pitch investor | stocks chart bull dividend | realestate mortgage agent villa
        marketing brand viral funnel | career resume interview boss | crypto bitcoin wallet mining
        farming tractor harvest barn | shop market haggle stall""",
    "mystery": """crime detective evidence heist | paranormal ghost ouija haunted | aliens saucer abduction crater
        conspiracy secret leak coverup | magic trick cards illusion | escape locked clue riddle
        legends dragon myth beast | survival island raft flint""",
}

SHARED_WORDS = tuple(
    """
    best new how to the my first day top easy funny amazing daily life vlog review tips guide beginner
    challenge try watch this wow never always home made real fast slow big small cute crazy perfect simple
    secret ultimate part one two three full short long story time today tonight weekend morning night friends
    people world must see know why what when where who learn teach start end before after next last year
    season special live happy sad calm relaxing satisfying epic fail win lucky hard level pro master expert
    classic modern old young cheap free luxury budget hidden rare weird strange true fake
    """.split()  # noqa: SIM905 a list of literals would run over a hundred lines
)
"""Words that say nothing about a topic."""
