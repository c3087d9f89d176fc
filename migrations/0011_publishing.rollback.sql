DROP TABLE published_pages;
