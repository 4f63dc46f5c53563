"""AV1 as the payload of a pool: a clip <-> closed groups of pictures as bare bytes, within a number of bytes.

``groups`` cuts a clip into closed groups of pictures, ``av1`` codes and decodes one of them, ``obus`` splits its bytes
and says what they claim to be, ``fit`` chooses size and quantiser for a number of bytes, and ``preview`` makes a stream
of the whole clip in a few hundred bytes.
"""
