"""Random guides: regular expressions, and JSON schemas that are valid by Draft 2020-12."""

import random
from typing import Any

LITERALS = [
    "a",
    "Z",
    "7",
    " ",
    "_",
    "-",
    "/",
    "é",
    "猫",
    "🙂",
    '"',
    r"\\",
    r"\n",
    r"\t",
    r"\.",
    r"\"",
    r"\x41",
    r"\u00e9",
]
CLASSES = [
    "[a-c]",
    "[^a-z]",
    '[^"]',
    r"[\w.-]",
    r"[^\\]",
    r"[\"\\]",
    r"[^\x00-\x1f]",
    "[é-ü]",
    "[一-龥]",
    r"[\s\d]",
    r"[^\W_]",
]
ESCAPES = [".", r"\d", r"\D", r"\w", r"\W", r"\s", r"\S"]
BOUNDED = ["?", "{2}", "{1,3}", "{0,2}", "??"]
UNBOUNDED = ["*", "+", "{2,}", "*?", "+?"]
NAMES = ["a", "b", "ab", "é", "e", "Name", "x y", 'q"', "back\\slash", "tab\t", "名字", "a/b", "a~b"]
FORMATS = ["date", "time", "date-time", "duration", "email", "hostname", "ipv4", "ipv6", "uuid", "uri", "uri-reference",
           "json-pointer", "relative-json-pointer", "no such format"]  # fmt: skip
VALUES = [
    "red",
    'say "hi"',
    "C:\\",
    "a\nb",
    "ключ",
    "",
    0,
    -3,
    7,
    2.5,
    1e-3,
    True,
    False,
    None,
    [],
    [1, "a"],
    {"k": None},
]
REFUSED = [  # keywords that no guide follows
    {"not": {"type": "null"}}, {"if": {}, "then": {}}, {"type": "array", "contains": {"type": "null"}},
    {"type": "array", "uniqueItems": True}, {"dependentRequired": {"a": ["b"]}}, {"type": "number", "multipleOf": 0.5},
    {"type": "string", "format": "regex"}, {"type": "string", "format": "date", "pattern": "^2"},
    {"allOf": [{"type": "integer"}, {"minimum": 3}]},
]  # fmt: skip


class Guides:
    def __init__(self, seed: int):
        self._random = random.Random(seed)

    def regex(self, depth: int = 3) -> str:
        alternatives = [self._sequence(depth, BOUNDED + UNBOUNDED) for _ in range(self._random.choice([1, 1, 1, 2, 3]))]
        if self._random.random() < 0.2:
            alternatives = [f"^{alternative}$" for alternative in alternatives]
        return "|".join(alternatives)

    def _sequence(self, depth: int, repetitions: list[str]) -> str:
        return "".join(self._repeated(depth, repetitions) for _ in range(self._random.randint(1, 3)))

    def _repeated(self, depth: int, repetitions: list[str]) -> str:
        atom = self._atom(depth)
        return atom + self._random.choice(repetitions) if self._random.random() < 0.4 else atom

    def _atom(self, depth: int) -> str:
        if depth > 0 and self._random.random() < 0.25:
            # Bounded, or Python's re takes for ever.
            inner = "|".join(self._sequence(depth - 1, BOUNDED) for _ in range(self._random.randint(1, 3)))
            return f"({self._random.choice(['', '?:'])}{inner})"
        return self._random.choice(self._random.choice([LITERALS, LITERALS, CLASSES, ESCAPES]))

    def schema(self) -> dict[str, Any]:
        names = self._random.sample(["node", "a/b", "a~b", "ü %"], 2)
        self._references = [
            "#/$defs/" + name.replace("~", "~0").replace("/", "~1").replace(" ", "%20") for name in names
        ]
        schema = self._schema(3)
        if self._references_used(schema):
            schema["$defs"] = {name: self._leaf() for name in names}
        return schema

    def _references_used(self, schema: Any) -> bool:
        return "$ref" in repr(schema)

    def _schema(self, depth: int) -> dict[str, Any]:
        kinds = [self._leaf] * 3
        if depth > 0:
            kinds += [self._object, self._object, self._array, self._choice, self._reference]
        kind = self._random.choice(kinds)
        schema = kind() if kind in (self._leaf, self._reference) else kind(depth)
        if self._random.random() < 0.1:
            schema["description"] = "a description"
        if self._random.random() < 0.02:
            schema = dict(self._random.choice(REFUSED))
        return schema

    def _reference(self) -> dict[str, Any]:
        return {"$ref": self._random.choice(self._references)}

    def _leaf(self) -> dict[str, Any]:
        kinds = [self._integer, self._number, self._string, self._values]
        return self._random.choice([*kinds, lambda: {"type": self._random.choice(["null", "boolean"])}])()

    def _integer(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "integer"} | self._bounds(lambda: self._random.randint(-300, 300))
        if self._random.random() < 0.2:
            schema["multipleOf"] = self._random.choice([1, 2, 7, 10])
        return schema

    def _number(self) -> dict[str, Any]:
        digits = self._random.randint(0, 4)
        return {"type": "number"} | self._bounds(lambda: round(self._random.uniform(-50, 50), digits))

    def _bounds(self, bound) -> dict[str, Any]:
        low, high = sorted([bound(), bound()])
        bounds = {self._random.choice(["minimum", "exclusiveMinimum"]): low}
        bounds |= {self._random.choice(["maximum", "exclusiveMaximum"]): high + self._random.choice([0, 3])}
        return {name: value for name, value in bounds.items() if self._random.random() < 0.4}

    def _string(self) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "string"}
        kind = self._random.random()
        if kind < 0.4:
            schema["pattern"] = self.regex(2)
        elif kind < 0.6:
            schema["format"] = self._random.choice(FORMATS)
        if self._random.random() < 0.3:
            low = self._random.randint(0, 4)
            schema |= self._random.choice(
                [{"minLength": low}, {"maxLength": low}, {"minLength": low, "maxLength": low + 5}]
            )
        return schema

    def _values(self) -> dict[str, Any]:
        values = self._random.sample(VALUES, self._random.randint(1, 4))
        schema: dict[str, Any] = {"enum": values} if self._random.random() < 0.7 else {"const": values[0]}
        if self._random.random() < 0.3:
            schema["type"] = self._random.choice(["string", "integer", ["number", "null"], "object"])
        return schema

    def _choice(self, depth: int) -> dict[str, Any]:
        keyword = self._random.choice(["anyOf", "anyOf", "oneOf", "allOf"])
        count = 1 if keyword == "allOf" else self._random.randint(1, 3)
        return {keyword: [self._schema(depth - 1) for _ in range(count)]}

    def _array(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "array"}
        if self._random.random() < 0.4:
            schema["prefixItems"] = [self._schema(depth - 1) for _ in range(self._random.randint(1, 3))]
        if self._random.random() < 0.7:
            schema["items"] = self._random.choice([self._schema(depth - 1), self._leaf(), False])
        low = self._random.randint(0, 3)
        limits = [{}, {}, {"minItems": low}, {"maxItems": low}, {"minItems": low, "maxItems": low + 2}]
        return schema | self._random.choice(limits)

    def _object(self, depth: int) -> dict[str, Any]:
        schema: dict[str, Any] = {"type": "object"}
        names = self._random.sample(NAMES, self._random.randint(0, 4))
        if names:
            schema["properties"] = {name: self._schema(depth - 1) for name in names}
        if self._random.random() < 0.6:
            required = [name for name in names if self._random.random() < 0.6]
            schema["required"] = required + (["other"] if self._random.random() < 0.1 else [])
        if self._random.random() < 0.3:
            schema["additionalProperties"] = self._random.choice([True, False, self._leaf()])
        if self._random.random() < 0.15:
            schema["patternProperties"] = {self.regex(1): self._leaf() for _ in range(self._random.randint(1, 2))}
        if self._random.random() < 0.1:
            schema["propertyNames"] = self._random.choice(
                [{"pattern": self.regex(1)}, {"enum": NAMES}, {"maxLength": 3}]
            )
        low = self._random.randint(0, 2)
        limits = [
            {},
            {},
            {"minProperties": low},
            {"maxProperties": low + 1},
            {"minProperties": low, "maxProperties": low + 1},
        ]
        return schema | self._random.choice(limits)
