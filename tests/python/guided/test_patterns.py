"""Regular expressions, grammars and choices."""

import ast
import json
import re

import pytest

WALKS = 60

REGEXES = [  # and texts that some walk must have
    (r"\d{4}-(0[1-9]|1[0-2])-\d{2}", [r"\d+-0\d-\d\d", r"\d+-1\d-\d\d"]),
    (r"[a-z]{1,8}@[a-z]{1,8}\.(com|org)", [r".*com", r".*org"]),
    (r"[一-龥]{2,5}", [r".{2}", r".{5}"]),
    (r"(猫|犬|🐱)+!?", [r".*猫.*", r".*犬.*", r".*🐱.*", r".*!", r".*[^!]"]),
    (r'"[^"\n]{0,20}"', [r'""', r'"[^"]+"']),
    (r"(?:a|b)*c", [r"c", r".+c"]),
    (r"\+?\d{1,3}( \d+){0,2}", [r"\+.*", r"\d.*", r"[^ ]*", r".* .* .*"]),
    (r"[^a-z\s]{3}", [r".*[A-Z].*", r".*[0-9].*"]),
    (r"^(yes|no)$", [r"yes", r"no"]),
    (r"\w\W\d\D", []),
    (r"[\w.-]{1,5}", [r".*-.*", r".*\..*"]),
    (r"\x41\u00e9\n\t\.", []),
    (r"a{2}b{0,1}c{3,}", [r"aabc+", r"aac+"]),
    (r"\t\x41\x1f0", []),
    (r"5(x[0-9]{1,3})?\+", [r"5\+", r"5x..\+"]),
    (r"(x[0-9]{1,2}|yz?){2,}\.", [r"x\d\dx.*", r"yyz.*"]),
]


@pytest.mark.parametrize("regex, expected", REGEXES, ids=[regex for regex, _ in REGEXES])
def test_the_whole_text_matches_the_expression(walker, regex, expected):
    texts = walker.texts("regex", regex, WALKS)
    for text in texts:
        assert re.fullmatch(regex, text) and re.fullmatch(regex, text, re.ASCII), text
    for form in expected:
        assert any(re.fullmatch(form, text, re.DOTALL) for text in texts), form


CHOICES = [
    "yes",
    "no",
    'a "quoted" one',
    "two\nlines\t",
    "back\\slash\\n",
    "是",
    "🙂🙂",
    "\x1b[0m1",
    "yes!",
    " a",
    "]|[",
    "é",
]


def test_the_text_is_one_of_the_choices(walker):
    assert set(walker.texts("choice", json.dumps(CHOICES), 200)) == set(CHOICES)


def test_a_choice_may_be_empty(walker):
    assert set(walker.texts("choice", '["", "a"]', WALKS)) == {"", "a"}


def test_the_text_follows_the_grammar(walker):
    grammar = """
        root ::= term (" " [-+*] " " term)*
        term ::= number | name | "(" root ")"
        number ::= "0" | [1-9] [0-9]{0,3}   # no leading zeros
        name ::= [a-zà-ý]{1,3} "_"
    """
    texts = walker.texts("grammar", grammar, WALKS)
    for text in texts:
        ast.parse(text, mode="eval")
    for form in (r"(.* )?0( .*)?", r"[1-9]\d*", r".*[à-ý].*_.*", r".*\(.*\).*", r".* \+ .*", r".* - .*", r".* \* .*"):
        assert any(re.fullmatch(form, text) for text in texts), form


@pytest.mark.parametrize(
    "type, guide, message",
    [
        ("json", "x", "guided_decoding: json: takes no guide"),
        ("json_schema", "{", "guided_decoding: json_schema: .*parse error at line 1, column 2"),
        ("json_schema", '{"type": "integer", "minimum": 2, "maximum": 1}', "# has bounds that no integer is within"),
        ("json_schema", '{"items": ' * 5000 + "{}" + "}" * 5000, "schemas are nested deeper than 100"),
        ("json_schema", '{"$ref": "#/$defs/a"}', r'#/\$ref is "#/\$defs/a", which the schema does not have'),
        ("regex", r"(?=a)b", "at character 3: lookahead is not supported"),
        ("regex", r"(a)\1", "references to groups"),
        ("regex", "[z-a]", "lower bound is larger"),
        ("regex", "a{3,2}", "lower bound is larger"),
        ("regex", "(" * 60_000 + "a" + ")" * 60_000, "groups are nested deeper than 100"),
        ("grammar", "root ::= other", 'Rule "other" is not defined'),
        ("grammar", 'root ::= "a', 'Expect " in string literal'),
        ("grammar", "root ::= Token(99999)", "out of the vocabulary range"),
        ("choice", "[]", "must be a JSON list of one or more strings"),
        ("choice", "[" * 100_000, "parse error"),
    ],
)
def test_guides_that_mean_nothing_are_errors(walker, type, guide, message):
    assert re.search(message, walker.error(type, guide))


@pytest.mark.parametrize("regex", [r"(\w+ ?)+=", r"([a-z]+ ?)*=", "(.{0,2}b?|.?)+="])
def test_expressions_that_match_in_many_ways_are_followed(walker, regex):
    answer = walker.ask("regex", regex, walks=1, max_tokens=200)
    assert "error" not in answer


def test_a_guide_that_a_text_follows_in_too_many_ways_ends_its_text_alone(walker):
    answer = walker.ask("regex", "([a-z]{1,100} ?){1,100}=", walks=1, max_tokens=2000)
    assert "too many ways" in answer["error"]
    assert walker.texts("regex", "a{3}", walks=1) == ["aaa"]


@pytest.mark.parametrize(
    "regex", ["(a{1000}){1000}", "((a{1,100}){1,100}){1,100}", "(a*)*b", "(.*a){30}", "a{1000000000}"]
)
def test_expressions_that_blow_up_elsewhere_are_compiled(walker, regex):
    answer = walker.ask("regex", regex, walks=1, max_tokens=20)
    assert "error" not in answer and answer["compile_us"] < 30e6


def test_spaces_are_those_of_unicode(walker):
    for text in walker.texts("regex", r"\s\S", WALKS):
        assert text[0].isspace() and not text[1].isspace()


def test_a_space_may_be_part_of_a_token(make_walker, tmp_path):
    import small_tokenizers

    tokenizer = small_tokenizers.metaspace()
    walker = make_walker(small_tokenizers.save(tokenizer, tmp_path), tokenizer.get_vocab_size(), "</s>")
    texts = walker.texts("regex", "[Tehdog ]{8}", WALKS)
    assert all(re.fullmatch("[Tehdog ]{8}", text) for text in texts)
    assert any(" dog" in text for text in texts)


@pytest.mark.parametrize("kind", ["sentencepiece", "llama2", "gemma", "metaspace", "t5", "byte_level"])
def test_the_space_that_begins_a_text_is_counted_as_a_client_gets_it(make_walker, tmp_path, kind):
    import small_tokenizers

    tokenizer = small_tokenizers.KINDS[kind]()
    end_token = "<|im_end|>" if kind == "byte_level" else "</s>"
    walker = make_walker(small_tokenizers.save(tokenizer, tmp_path), tokenizer.get_vocab_size(), end_token)
    for choices in (["The", "dog"], [" dog", " The dog"]):
        assert set(walker.texts("choice", json.dumps(choices), WALKS)) == set(choices)


def test_characters_of_byte_tokens_are_utf8(make_walker, tmp_path):
    import small_tokenizers

    tokenizer = small_tokenizers.sentencepiece()
    walker = make_walker(small_tokenizers.save(tokenizer, tmp_path), tokenizer.get_vocab_size(), "</s>")
    texts = walker.texts("regex", "[^a-z]{4}", 400)
    assert all(re.fullmatch("[^a-z]{4}", text, re.DOTALL) for text in texts)
    for size in (1, 2, 3, 4):
        assert any(len(character.encode()) == size for text in texts for character in text), size
