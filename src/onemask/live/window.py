"""A window with the newest picture, if there is a screen; uses SDL (pygame-ce, the extra `preview`)."""

from __future__ import annotations

import os
import sys
from contextlib import AbstractContextManager

import numpy as np

from ..errors import InputError
from ..extras import how_to_install

_SCREENS = ("DISPLAY", "WAYLAND_DISPLAY", "SDL_VIDEODRIVER")  # one of these is set if there may be a screen
_NO_SCREENS = ("offscreen", "dummy")  # SDL's drivers without a screen


class Window(AbstractContextManager["Window"]):
    """A window as large as the first picture, or as the screen where that is smaller; it can be resized.

    Raises:
        InputError: there is no screen, or pygame-ce is not installed.
    """

    def __init__(self, title: str = "onemask"):
        os.environ.setdefault("PYGAME_HIDE_SUPPORT_PROMPT", "1")  # its banner would go to standard output
        try:
            import pygame
        except ModuleNotFoundError as error:
            raise InputError(
                f"a window needs the package pygame-ce, which is not installed: {how_to_install('preview')}"
            ) from error
        if sys.platform == "linux" and not any(map(os.environ.get, _SCREENS)) and not os.path.isdir("/dev/dri"):
            raise InputError("there is no screen for a window")  # SDL would try, and print errors
        self._pygame, self._title = pygame, title
        asked = os.environ.get("SDL_VIDEODRIVER", "")
        try:
            pygame.display.init()
        except pygame.error as error:
            raise InputError(f"there is no screen for a window ({error})") from error
        if (driver := pygame.display.get_driver()) in _NO_SCREENS and driver != asked:
            pygame.display.quit()
            raise InputError("there is no screen for a window")
        self._surface: pygame.Surface | None = None

    def __exit__(self, *error: object) -> None:
        self._pygame.display.quit()

    def show(self, picture: np.ndarray) -> bool:
        """Show a picture, (H, W, 3) uint8 RGB. Returns False once the user closes the window or presses Q or Escape."""
        pygame = self._pygame
        height, width = picture.shape[:2]
        if self._surface is None:
            across, down = pygame.display.get_desktop_sizes()[0]
            scale = min(1.0, 0.9 * across / width, 0.9 * down / height)
            size = max(1, round(width * scale)), max(1, round(height * scale))
            self._surface = pygame.display.set_mode(size, pygame.RESIZABLE)
            pygame.display.set_caption(self._title)
        for event in pygame.event.get():
            if event.type == pygame.QUIT:
                return False
            if event.type == pygame.KEYDOWN and event.key in (pygame.K_q, pygame.K_ESCAPE):
                return False
        surface = pygame.display.get_surface()
        image = pygame.image.frombuffer(np.ascontiguousarray(picture), (width, height), "RGB")
        scale = min(surface.get_width() / width, surface.get_height() / height)
        fitted = pygame.transform.smoothscale(image, (max(1, round(width * scale)), max(1, round(height * scale))))
        surface.fill((22, 23, 26))
        surface.blit(fitted, fitted.get_rect(center=surface.get_rect().center))
        pygame.display.flip()
        return True
