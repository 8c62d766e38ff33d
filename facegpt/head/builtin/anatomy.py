"""Figures of an average adult head that the built-in head is built from.

The figures were measured on ICT-FaceKit, an average of scanned people (Li et al. 2020, "Learning Formation of
Physically-Based Face Attributes"; github.com/ICT-VGL/ICT-FaceKit, MIT licence): of its mean shape the 68
landmarks, the profile with its widths, crown and eye centres; of its components the jaw's axis, how far
expressions move what (`expression.py`) and how large its first identity modes are (`identity.py`). The mesh
itself is not used. Points between the landmarks were placed by hand to go with them.

All lengths in millimetres; x to the subject's left, y up, z out of the face; y = 0 at eye-centre height.
Only the left half (x >= 0) is written down; everything mirrors at x = 0.
"""

from __future__ import annotations

import numpy as np

EYE_CENTER = np.array([31.2, 0.0, 79.8])
EYE_RADIUS = 15.0  # a little less than the anatomical 15.8: the lids have to slide over it
LID_RADIUS = 15.9  # inner surface of the lid margin
JAW_PIVOT = np.array([0.0, -41.5, 18.2])
CROWN_Y, NECK_Y = 109.0, -160.0

# iBUG landmarks of ICT-FaceKit's mean shape, midline and the subject's left (x >= 0): index -> position.
LEFT_LANDMARKS: dict[int, tuple[float, float, float]] = {
    8: (0.0, -111.7, 104.3), 9: (15.4, -108.6, 102.7), 10: (30.5, -105.1, 87.7), 11: (43.0, -98.1, 73.5),
    12: (57.2, -80.9, 61.3), 13: (65.6, -59.6, 51.7), 14: (69.4, -40.6, 45.3), 15: (72.8, -21.1, 39.3),
    16: (73.6, 0.7, 36.6),
    22: (11.7, 23.1, 107.3), 23: (24.1, 25.9, 104.8), 24: (37.9, 26.5, 98.3), 25: (49.3, 23.8, 89.9),
    26: (58.2, 16.0, 79.1),
    27: (0.0, 1.4, 107.3), 28: (0.0, -9.7, 115.2), 29: (0.0, -19.9, 123.1), 30: (0.0, -32.0, 130.7),
    33: (0.0, -48.0, 115.7), 34: (6.0, -47.4, 114.2), 35: (12.5, -47.5, 108.7),
    42: (18.4, -3.5, 92.0), 43: (27.8, 3.3, 95.3), 44: (38.7, 2.7, 93.6), 45: (44.6, -1.7, 86.0),
    46: (38.6, -5.3, 92.3), 47: (27.3, -5.2, 94.1),
    51: (0.0, -60.8, 118.4), 52: (7.3, -60.2, 117.3), 53: (17.0, -63.8, 112.2), 54: (25.3, -71.2, 101.9),
    55: (18.0, -76.6, 109.0), 56: (10.3, -79.0, 113.9), 57: (0.0, -79.8, 115.5),
    62: (0.0, -69.3, 112.8), 63: (10.0, -69.0, 110.9), 64: (22.1, -70.9, 101.3), 65: (10.7, -69.8, 110.4),
    66: (0.0, -70.0, 112.5),
}  # fmt: skip

# iBUG index on the right side -> index of its mirror image on the left.
MIRROR = {k: 16 - k for k in range(8)} | {17 + k: 26 - k for k in range(5)} | {31: 35, 32: 34}
MIRROR |= {36: 45, 37: 44, 38: 43, 39: 42, 40: 47, 41: 46}
MIRROR |= {48: 54, 49: 53, 50: 52, 58: 56, 59: 55, 60: 64, 61: 63, 67: 65}


def landmark_table() -> np.ndarray:
    """The 68 landmarks in iBUG order, (68, 3) mm."""
    table = np.zeros((68, 3))
    for index in range(68):
        source = MIRROR.get(index, index)
        table[index] = LEFT_LANDMARKS[source]
        if source != index:
            table[index, 0] *= -1.0
    return table


# Base shape: height -> front z of the face plane (nose, lips and chin left out), back z, half width.
PROFILE = np.array([
    [30, 107, -87, 79], [15, 106, -87, 79], [5, 104.5, -86, 78.5], [-15, 102, -82, 77.5], [-35, 102, -74, 76],
    [-55, 104, -66, 72], [-65, 104, -64, 68], [-75, 103, -62, 64], [-85, 101, -60, 60], [-95, 95, -59, 56.5],
    [-105, 84, -58.5, 54], [-115, 70, -58.5, 52.5], [-125, 61, -59.5, 52], [-145, 53, -62, 53.5],
    [-162, 48, -65, 57],
])  # fmt: skip

# Points of the skin between the landmarks, by region.
SKIN_POINTS = np.array([
    # bridge, side walls and base of the nose
    (5, 2, 105.2), (9, 3, 102.4), (6.0, -9.7, 112.0), (10.5, -10, 104.0), (15.5, -11, 98.2),
    (6.0, -20, 119.4), (10.5, -20, 110.5), (15, -21, 102.6), (19, -22, 99.0),
    (6.5, -29, 125.6), (11.0, -29.5, 116.5), (15.5, -30, 106.0), (20, -30, 100.6),
    # tip, wings, columella and the alar crease
    (0, -37, 130.6), (0, -41.5, 127.5), (0, -45, 121.5), (5.5, -35, 129.0), (7.5, -40, 124.6),
    (4.0, -44.5, 121.5),
    (11, -37, 119.0), (14.5, -38, 114.4), (17.2, -40, 108.8), (16.8, -44.3, 107.0), (12.5, -43.5, 115.2),
    (9.0, -45.3, 116.5), (21.5, -41, 100.8), (20, -46.5, 101.8), (24, -36, 99.6),
    # philtrum and the skin above the lips
    (0, -53.5, 114.6), (4.6, -53, 115.3), (10, -53, 112.6), (17, -53, 107.4), (24, -54, 101.6),
    (30, -62, 98.0),
    # lips
    (0, -65.2, 119.0), (8.5, -65.2, 117.0), (16.5, -67.6, 110.8), (0, -74.5, 117.8), (9.5, -74.2, 115.4),
    (17, -73.6, 108.8), (29, -71, 98.6),
    # chin
    (0, -85.5, 111.4), (11, -85, 110.0), (0, -92, 111.2), (0, -99, 112.3), (0, -106, 109.6), (10, -98, 109.6),
    (11, -105, 107.0), (20, -90, 104.6), (21, -99, 102.0), (26, -78, 101.0), (31, -93, 95.2),
    # cheek and jaw
    (30, -30, 97.6), (28, -42, 98.8), (36, -42, 97.4), (45, -40, 92.2), (54, -34, 84.8), (60, -38, 75.5),
    (66, -33, 62),
    (35, -54, 97.0), (45, -55, 90.0), (55, -54, 79.2), (62, -52, 65.5), (37, -70, 94.0), (47, -70, 84.6),
    (56, -69, 70.5), (39, -85, 88.6), (48, -84, 76.5),
    # below and beside the eye
    (28, -15.5, 94.8), (20, -13, 95.6), (37, -15.5, 93.6), (46, -13.5, 88.2), (55, -16, 80.8),
    (30, -22, 95.4),
    (40, -23, 93.0), (49, -24, 88.4), (60, -22, 72.5), (67, -16, 56.0), (49.5, -1, 83.6), (55, 2, 77.6),
    (62, 0, 66.5), (68.5, 2, 52.0),
    # above the eye
    (13.5, 4, 98.8), (13.2, -3.5, 97.0), (20, 11, 98.0), (31, 12.0, 96.2), (42, 11.5, 92.4), (51, 9.5, 84.6),
    (17, 17, 105.0), (30, 18.5, 101.8), (42, 18.5, 97.0), (0, 10, 106.6), (0, 19, 108.6), (8, 12, 105.6),
    (64.5, 16, 64.5), (71, 16, 47.0),
    # forehead and temple
    (0, 35, 106.8), (0, 50, 103.6), (20, 38, 104.6), (38, 40, 96.0), (54, 38, 80.0), (67, 34, 58.0),
    (25, 58, 96.6), (45, 58, 82.0), (0, 65, 96.0),
    # underside of the jaw and the throat
    (0, -119, 92.0), (0, -124, 76.0), (0, -131, 63.5), (0, -146, 55.5), (14, -117.5, 88.0), (13, -122, 74.0),
    (27, -114, 77.0), (24, -122, 64.0), (37, -109, 64.5), (33, -120, 55.0), (49, -95.5, 54.5),
    (44, -110, 44.0),
    (57.5, -86, 38.0), (63.5, -66, 34.0), (51.5, -100, 24.0), (14, -137, 57.5), (30, -137, 48.0),
    (58.5, -88, 12), (71, -60, 20.0), (75, -30, 14.0), (78, 0, 8.0),
])  # fmt: skip

# Opening between the lids (x, y), from the inner to the outer corner, and the same for the lower lid.
UPPER_LID = np.array(
    [(18.2, -3.5), (21.5, 0.4), (26.0, 3.4), (31.0, 4.4), (36.0, 4.0), (40.6, 1.8), (44.6, -1.7)]
)
LOWER_LID = np.array(
    [(18.2, -3.5), (22.5, -4.5), (27.3, -5.3), (32.5, -5.6), (37.5, -5.2), (41.5, -3.9), (44.6, -1.7)]
)
# Line where the lips meet (x, y) and the outer border of the lip red above and below it.
LIP_LINE = np.array([(0, -69.6), (5, -69.7), (10, -69.4), (16, -69.9), (20, -70.6), (23.6, -71.0)])
UPPER_LIP = np.array(
    [(0, -60.8), (3.4, -60.3), (7.3, -60.1), (12, -61.6), (17, -63.9), (21.5, -67.2), (25.6, -71.2)]
)
LOWER_LIP = np.array([(0, -79.8), (5, -79.7), (10.3, -79.0), (18, -76.6), (22.2, -74.0), (25.6, -71.2)])
